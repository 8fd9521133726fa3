package clicktally.bench;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.runtime.checkpoint.CheckpointStatsCounts;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.state.rocksdb.EmbeddedRocksDBStateBackend.PriorityQueueStateType;
import org.apache.flink.state.rocksdb.RocksDBConfigurableOptions;
import org.apache.flink.state.rocksdb.RocksDBOptions;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.WindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.flink.util.FileUtils;

/**
 * The count as a Flink job: Kafka source, optional dedup keyed by click id, event-time minute windows keyed by ad.
 * State is in exactly-once checkpoints. The job reads from the earliest offsets to the end offsets at its start.
 */
public final class FlinkCount {
    private static final int PARALLELISM = 2;
    /** A partition is nearly in order. Flink drops clicks beyond this bound, and the run would then fail its check. */
    private static final Duration OUT_OF_ORDER_MAX = Duration.ofSeconds(5);
    private static final Duration WINDOW = Duration.ofMinutes(1);

    private FlinkCount() {}

    public static void main(String[] arguments) throws Exception {
        FlinkOptions options = FlinkOptions.parse(arguments);
        Path folder = Files.createTempDirectory("clicktally-flink-");
        try {
            CheckpointStatsCounts checkpoints = run(options, folder);
            Measurement.report(
                    options.who(),
                    options.isDeduplicated(),
                    checkpoints.getNumberOfCompletedCheckpoints(),
                    checkpoints.getNumberOfFailedCheckpoints());
        } finally {
            FileUtils.deleteDirectory(folder.toFile());
        }
    }

    private static CheckpointStatsCounts run(FlinkOptions options, Path folder) throws Exception {
        Configuration configuration = configuration(options, folder);
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.getExecutionEnvironment(configuration);
        environment.setParallelism(PARALLELISM);
        build(environment, options.isDeduplicated());
        var cluster = new MiniClusterConfiguration.Builder()
                .setConfiguration(configuration)
                .setNumTaskManagers(1)
                .setNumSlotsPerTaskManager(PARALLELISM)
                .withRandomPorts()
                .build();
        try (MiniCluster flink = new MiniCluster(cluster)) {
            flink.start();
            JobID job = flink.submitJob(environment.getStreamGraph()).get().getJobID();
            flink.requestJobResult(job).get().toJobExecutionResult(FlinkCount.class.getClassLoader());
            return flink.getArchivedExecutionGraph(job).get().getCheckpointStatsSnapshot().getCounts();
        }
    }

    private static void build(StreamExecutionEnvironment environment, boolean isDeduplicated) {
        KafkaSource<FlinkClick> source = KafkaSource.<FlinkClick>builder()
                .setBootstrapServers(RawClicks.brokers())
                .setTopics(RawClicks.TOPIC)
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setBounded(OffsetsInitializer.latest())
                .setDeserializer(new FlinkClickReader())
                // The checkpoints hold the offsets.
                .setProperty("commit.offsets.on.checkpoint", "false")
                .setProperty("max.poll.records", "5000")
                .build();
        WatermarkStrategy<FlinkClick> eventTime = WatermarkStrategy.<FlinkClick>forBoundedOutOfOrderness(
                        OUT_OF_ORDER_MAX)
                .withTimestampAssigner((click, logTimeMs) -> click.eventTimeMs);
        DataStream<FlinkClick> clicks = environment.fromSource(source, eventTime, RawClicks.TOPIC);
        if (isDeduplicated) {
            clicks = clicks.keyBy(click -> click.clickId, Types.LONG)
                    .process(new FlinkDedup(), TypeInformation.of(FlinkClick.class));
        }
        clicks.keyBy(click -> click.adId, Types.LONG)
                .window(TumblingEventTimeWindows.of(WINDOW))
                .aggregate(new CountClicks(), new NameWindow())
                .sinkTo(new FlinkCountSink());
    }

    private static Configuration configuration(FlinkOptions options, Path folder) {
        Configuration to = new Configuration();
        to.set(PipelineOptions.OBJECT_REUSE, true);
        // If a type ever needs Kryo, fail instead of using it silently.
        to.set(PipelineOptions.GENERIC_TYPES, false);
        // A failure must fail the run, because a restart would count its clicks again.
        to.set(RestartStrategyOptions.RESTART_STRATEGY, "none");
        to.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, options.checkpointInterval());
        to.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, CheckpointingMode.EXACTLY_ONCE);
        // A failed checkpoint is reported and does not fail the job.
        to.set(CheckpointingOptions.TOLERABLE_FAILURE_NUMBER, Integer.MAX_VALUE);
        to.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        to.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, folder.resolve("checkpoints").toUri().toString());
        to.set(StateBackendOptions.STATE_BACKEND, options.stateBackend().flinkName);
        if (options.stateBackend() == FlinkOptions.StateBackend.ROCKSDB) {
            rocksdb(to, folder);
        }
        return to;
    }

    private static void rocksdb(Configuration to, Path folder) {
        to.set(CheckpointingOptions.INCREMENTAL_CHECKPOINTS, true);
        to.set(RocksDBOptions.LOCAL_DIRECTORIES, folder.resolve("rocksdb").toString());
        // This memory is outside the Java heap. With a MiniCluster's default of 128 MB, RocksDB flushes its write
        // buffers all the time, and the job cost at least a third more.
        to.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.ofMebiBytes(1024));
        // Nearly every id that dedup looks up is absent, so the filter answers without reading a block.
        to.set(RocksDBConfigurableOptions.USE_BLOOM_FILTER, true);
        // A window registers its timers at every click. On the heap that is a lookup, in RocksDB a read and a write.
        to.set(RocksDBOptions.TIMER_SERVICE_FACTORY, PriorityQueueStateType.HEAP);
    }

    private static final class CountClicks implements AggregateFunction<FlinkClick, Long, Long> {
        @Override
        public Long createAccumulator() {
            return 0L;
        }

        @Override
        public Long add(FlinkClick click, Long clicks) {
            return clicks + 1;
        }

        @Override
        public Long getResult(Long clicks) {
            return clicks;
        }

        @Override
        public Long merge(Long clicks, Long more) {
            return clicks + more;
        }
    }

    private static final class NameWindow implements WindowFunction<Long, AdMinuteClicks, Long, TimeWindow> {
        @Override
        public void apply(Long adId, TimeWindow window, Iterable<Long> clicks, Collector<AdMinuteClicks> out) {
            long minute = window.getStart() / WINDOW.toMillis();
            for (long count : clicks) {
                out.collect(new AdMinuteClicks(adId, minute, count));
            }
        }
    }
}
