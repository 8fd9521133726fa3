package clicktally.bench;

import java.time.Duration;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Passes the first click of each id on. Keyed by click id; an id is forgotten after {@link #REMEMBERED}. */
final class FlinkDedup extends KeyedProcessFunction<Long, FlinkClick, FlinkClick> {
    static final Duration REMEMBERED = Duration.ofMinutes(20);

    private transient ValueState<Boolean> seen;

    @Override
    public void open(OpenContext context) {
        ValueStateDescriptor<Boolean> descriptor = new ValueStateDescriptor<>("seen", Types.BOOLEAN);
        // This is for the heap only, because RocksDB forgets ids while it compacts. One id checked per click is enough:
        // each id is then checked about once in REMEMBERED. Flink's default of five costs a tenth of the job.
        descriptor.enableTimeToLive(
                StateTtlConfig.newBuilder(REMEMBERED).cleanupIncrementally(1, false).build());
        seen = getRuntimeContext().getState(descriptor);
    }

    @Override
    public void processElement(FlinkClick click, Context context, Collector<FlinkClick> out) throws Exception {
        if (seen.value() == null) {
            seen.update(true);
            out.collect(click);
        } else {
            Measurement.DUPLICATES.increment();
        }
    }
}
