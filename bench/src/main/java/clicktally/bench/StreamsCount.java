package clicktally.bench;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.Stores;

/**
 * The count as a Kafka Streams application: optional dedup in the topic's own partitions, repartition by ad, count per
 * event-time minute. It runs exactly-once (v2) with in-memory stores and their change logs. It reads from the earliest
 * offsets to the end offsets at its start.
 */
public final class StreamsCount {
    private static final int THREADS = 2;
    private static final Duration COMMIT_INTERVAL = Duration.ofSeconds(1);
    private static final Duration WINDOW = Duration.ofMinutes(1);
    /** Repartitioned clicks arrive out of order while old data is replayed. Clicks beyond this bound are dropped. */
    private static final Duration OUT_OF_ORDER_MAX = Duration.ofMinutes(15);

    private static final Duration LOOK_EVERY = Duration.ofMillis(10);
    /** This is longer than any pause of a healthy run. */
    private static final Duration STUCK_AFTER = Duration.ofSeconds(60);

    /** The newest count of every (ad, minute). The application puts out a new one with each commit. */
    private static final Map<Windowed<Long>, Long> NEWEST_COUNTS = new ConcurrentHashMap<>();

    private StreamsCount() {}

    public static void main(String[] arguments) throws Exception {
        boolean isDeduplicated = List.of(arguments).contains("--dedup");
        if (arguments.length > (isDeduplicated ? 1 : 0)) {
            throw new IllegalArgumentException("unknown arguments; known is --dedup");
        }
        Path folder = Files.createTempDirectory("clicktally-streams-");
        String application = "clicktally-bench-" + UUID.randomUUID();
        try (Admin admin = Admin.create(
                Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, RawClicks.brokers()))) {
            long records = recordsInTopic(admin);
            long commits;
            try (var streams = new KafkaStreams(topology(isDeduplicated), settings(application, folder))) {
                commits = run(streams, records);
            } finally {
                deleteInternalTopics(admin, application);
            }
            // A commit that fails ends the run.
            Measurement.report(
                    "streams" + (isDeduplicated ? "-dedup" : "") + "-" + COMMIT_INTERVAL.toSeconds() + "s",
                    isDeduplicated,
                    commits,
                    0);
        } finally {
            Utils.delete(folder.toFile());
        }
    }

    private static Topology topology(boolean isDeduplicated) {
        var builder = new StreamsBuilder();
        String[] stores = {};
        if (isDeduplicated) {
            builder.addStateStore(Stores.keyValueStoreBuilder(
                    Stores.inMemoryKeyValueStore(StreamsClickReader.SEEN_IDS), Serdes.Long(), Serdes.Long()));
            stores = new String[] {StreamsClickReader.SEEN_IDS};
        }
        var counts = Stores.inMemoryWindowStore("counts", WINDOW.plus(OUT_OF_ORDER_MAX), WINDOW, false);
        builder.stream(RawClicks.TOPIC, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(() -> new StreamsClickReader(isDeduplicated), stores)
                .repartition(Repartitioned.with(Serdes.Long(), Serdes.ByteArray()).withName("by-ad"))
                .groupByKey(Grouped.with(Serdes.Long(), Serdes.ByteArray()))
                .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, OUT_OF_ORDER_MAX))
                .count(Materialized.<Long, Long>as(counts)
                        .withKeySerde(Serdes.Long())
                        .withValueSerde(Serdes.Long())
                        .withCachingEnabled())
                .toStream()
                .foreach(StreamsCount::count);
        return builder.build();
    }

    private static void count(Windowed<Long> adMinute, Long clicks) {
        Long before = NEWEST_COUNTS.put(adMinute, clicks);
        Measurement.COUNTED.add(before == null ? clicks : clicks - before);
    }

    private static Properties settings(String application, Path folder) {
        var to = new Properties();
        to.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        to.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, RawClicks.brokers());
        to.put(StreamsConfig.STATE_DIR_CONFIG, folder.toString());
        to.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        to.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT_INTERVAL.toMillis());
        to.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, THREADS);
        // All counts that change between two commits fit, so each is logged once a commit and not once a click.
        to.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        to.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        to.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        to.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        to.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        to.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        to.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
        return to;
    }

    /** Runs until the whole topic is counted. Returns the number of committed transactions. */
    private static long run(KafkaStreams streams, long records) throws InterruptedException {
        var failure = new AtomicReference<Throwable>();
        streams.setUncaughtExceptionHandler(thrown -> {
            failure.compareAndSet(null, thrown);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        long progress = 0;
        long progressNanos = System.nanoTime();
        while (true) {
            // Take the counted number before the read one. In the other order, a click read in between would look like
            // one too many.
            long done = Measurement.COUNTED.sum() + Measurement.DUPLICATES.sum();
            long read = StreamsClickReader.RECORDS.sum();
            if (read == records && done == Measurement.EVENTS.sum()) {
                Measurement.lastCount();
                return (long) sumOfMetric(streams, "commit-total");
            }
            if (failure.get() != null) {
                throw new IllegalStateException("a thread of Kafka Streams failed", failure.get());
            }
            if (read + done != progress) {
                progress = read + done;
                progressNanos = System.nanoTime();
            } else if (System.nanoTime() - progressNanos > STUCK_AFTER.toNanos()) {
                throw new IllegalStateException(String.format(
                        "no progress for %d s: %d of %d records read, %d of their %d clicks counted or found duplicate, "
                                + "%.0f records dropped as late",
                        STUCK_AFTER.toSeconds(), read, records, done, Measurement.EVENTS.sum(),
                        sumOfMetric(streams, "dropped-records-total")));
            }
            TimeUnit.NANOSECONDS.sleep(LOOK_EVERY.toNanos());
        }
    }

    private static double sumOfMetric(KafkaStreams streams, String name) {
        return streams.metrics().values().stream()
                .filter(metric -> metric.metricName().name().equals(name))
                .filter(metric -> metric.metricName().group().equals("stream-thread-metrics")
                        || metric.metricName().group().equals("stream-task-metrics"))
                .mapToDouble(metric -> ((Number) metric.metricValue()).doubleValue())
                .sum();
    }

    private static long recordsInTopic(Admin admin) throws ExecutionException, InterruptedException {
        var topic = admin.describeTopics(List.of(RawClicks.TOPIC)).allTopicNames().get().get(RawClicks.TOPIC);
        var partitions = topic.partitions().stream()
                .map(partition -> new TopicPartition(RawClicks.TOPIC, partition.partition()))
                .toList();
        return offsets(admin, partitions, OffsetSpec.latest()) - offsets(admin, partitions, OffsetSpec.earliest());
    }

    private static long offsets(Admin admin, List<TopicPartition> partitions, OffsetSpec which)
            throws ExecutionException, InterruptedException {
        var asked = partitions.stream().collect(Collectors.toMap(Function.identity(), partition -> which));
        return admin.listOffsets(asked).all().get().values().stream().mapToLong(offset -> offset.offset()).sum();
    }

    private static void deleteInternalTopics(Admin admin, String application)
            throws ExecutionException, InterruptedException {
        var internal = admin.listTopics().names().get().stream()
                .filter(topic -> topic.startsWith(application))
                .toList();
        admin.deleteTopics(internal).all().get();
    }
}
