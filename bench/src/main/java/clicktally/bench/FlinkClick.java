package clicktally.bench;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.apache.flink.types.CopyableValue;

/**
 * A click on its way between Flink's operators. A {@code Value} writes its own bytes. It needs no reflection, as a POJO
 * does, and no boxed numbers, as a tuple does.
 */
public final class FlinkClick implements CopyableValue<FlinkClick> {
    private static final int BYTES = 3 * Long.BYTES;

    long clickId;
    long adId;
    long eventTimeMs;

    /** Flink calls this to create the instances that it reuses. */
    public FlinkClick() {}

    @Override
    public void write(DataOutputView out) throws IOException {
        out.writeLong(clickId);
        out.writeLong(adId);
        out.writeLong(eventTimeMs);
    }

    @Override
    public void read(DataInputView in) throws IOException {
        clickId = in.readLong();
        adId = in.readLong();
        eventTimeMs = in.readLong();
    }

    @Override
    public int getBinaryLength() {
        return BYTES;
    }

    @Override
    public void copyTo(FlinkClick target) {
        target.clickId = clickId;
        target.adId = adId;
        target.eventTimeMs = eventTimeMs;
    }

    @Override
    public FlinkClick copy() {
        FlinkClick copy = new FlinkClick();
        copyTo(copy);
        return copy;
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        target.write(source, BYTES);
    }
}
