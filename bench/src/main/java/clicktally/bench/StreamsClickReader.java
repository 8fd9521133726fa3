package clicktally.bench;

import java.time.Duration;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Reads the clicks of a raw record and forwards the first click of each id, keyed by ad, at its event time.
 *
 * <p>Dedup needs no repartitioning, because all copies of a click are in the same partition of the topic. An id is
 * forgotten once it is {@link #REMEMBERED} of event time behind the newest click of its partition.
 */
final class StreamsClickReader implements Processor<byte[], byte[], Long, byte[]> {
    static final String SEEN_IDS = "seen-ids";
    static final Duration REMEMBERED = Duration.ofMinutes(20);
    static final LongAdder RECORDS = new LongAdder();

    private static final Duration FORGET_EVERY = Duration.ofMinutes(1);
    /** Only the number of records counts. The value carries nothing, but a record with a null would not be counted. */
    private static final byte[] CLICK = {};

    private final boolean isDeduplicated;
    private final ClickFields fields = new ClickFields();
    private ProcessorContext<Long, byte[]> context;
    /** Event time by click id, or null if the job counts duplicates. */
    private KeyValueStore<Long, Long> seenIds;
    private long newestEventTimeMs;
    private boolean hasBegun;

    StreamsClickReader(boolean isDeduplicated) {
        this.isDeduplicated = isDeduplicated;
    }

    @Override
    public void init(ProcessorContext<Long, byte[]> context) {
        this.context = context;
        if (isDeduplicated) {
            seenIds = context.getStateStore(SEEN_IDS);
            context.schedule(FORGET_EVERY, PunctuationType.WALL_CLOCK_TIME, now -> forget());
        }
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
        if (!hasBegun) {
            hasBegun = true;
            Measurement.firstClick();
        }
        fields.open(record.value());
        int clicks = 0;
        int duplicates = 0;
        while (fields.next()) {
            clicks++;
            if (isDeduplicated && isSeen()) {
                duplicates++;
            } else {
                context.forward(new Record<>(fields.adId(), CLICK, fields.eventTimeMs()));
            }
        }
        Measurement.EVENTS.add(clicks);
        Measurement.DUPLICATES.add(duplicates);
        RECORDS.increment();
    }

    private boolean isSeen() {
        newestEventTimeMs = Math.max(newestEventTimeMs, fields.eventTimeMs());
        return seenIds.putIfAbsent(fields.clickId(), fields.eventTimeMs()) != null;
    }

    private void forget() {
        long forgottenBeforeMs = newestEventTimeMs - REMEMBERED.toMillis();
        try (KeyValueIterator<Long, Long> ids = seenIds.all()) {
            while (ids.hasNext()) {
                KeyValue<Long, Long> id = ids.next();
                if (id.value < forgottenBeforeMs) {
                    seenIds.delete(id.key);
                }
            }
        }
    }
}
