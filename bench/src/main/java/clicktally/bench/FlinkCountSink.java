package clicktally.bench;

import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;

/** Adds up the counts of the (ad, minute) windows and writes them nowhere. */
final class FlinkCountSink implements Sink<AdMinuteClicks> {
    @Override
    public SinkWriter<AdMinuteClicks> createWriter(WriterInitContext context) {
        return new Writer();
    }

    private static final class Writer implements SinkWriter<AdMinuteClicks> {
        @Override
        public void write(AdMinuteClicks count, Context context) {
            Measurement.COUNTED.add(count.clicks());
        }

        @Override
        public void flush(boolean isEndOfInput) {
            if (isEndOfInput) {
                Measurement.lastCount();
            }
        }

        @Override
        public void close() {}
    }
}
