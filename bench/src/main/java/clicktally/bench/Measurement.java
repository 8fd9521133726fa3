package clicktally.bench;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.atomic.LongAdder;

/**
 * The counts of one run and its cost. Everything is static, because each job has its own process and the engine creates
 * the operators.
 *
 * <p>CPU is the user and system time of all threads of this process. The broker is another process.
 */
final class Measurement {
    /** Clicks read from the topic, including duplicates. */
    static final LongAdder EVENTS = new LongAdder();
    /** Clicks that the job recognised as duplicates. */
    static final LongAdder DUPLICATES = new LongAdder();
    /** The sum of the counts that left the job, with each (ad, minute) once. */
    static final LongAdder COUNTED = new LongAdder();

    private static final AtomicReference<Instant> FIRST_CLICK = new AtomicReference<>();
    private static final AtomicReference<Instant> LAST_COUNT = new AtomicReference<>();

    private record Instant(long nanos, long cpuNanos) {
        static Instant now() {
            var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
            return new Instant(System.nanoTime(), system.getProcessCpuTime());
        }
    }

    private Measurement() {}

    /** Each reader calls this before its first click. The earliest call counts. */
    static void firstClick() {
        FIRST_CLICK.compareAndSet(null, Instant.now());
    }

    /** Each writer calls this after its last count. The latest call counts. */
    static void lastCount() {
        LAST_COUNT.set(Instant.now());
    }

    /**
     * Prints the run as one line of JSON. Throws if its counts are wrong, because a benchmark of wrong counts measures
     * nothing.
     *
     * @param checkpointsFailed checkpoints that started and did not complete, for any reason
     */
    static void report(String who, boolean isDeduplicated, long checkpointsCompleted, long checkpointsFailed) {
        Instant end = Instant.now();
        long events = EVENTS.sum();
        long duplicates = DUPLICATES.sum();
        long counted = COUNTED.sum();
        check(who, isDeduplicated, events, counted, duplicates);
        Instant first = FIRST_CLICK.get();
        Instant last = LAST_COUNT.get();
        System.out.printf(
                Locale.ROOT,
                "{\"who\":\"%s\",\"events\":%d,\"events_per_s\":%.0f,\"cpu_s_per_million\":%.2f,"
                        + "\"steady_cpu_s_per_million\":%.2f,\"counted\":%d,\"duplicates\":%d,"
                        + "\"checkpoints\":{\"completed\":%d,\"failed\":%d}}%n",
                who,
                events,
                events * 1e9 / (last.nanos - first.nanos),
                end.cpuNanos / 1e3 / events,
                (last.cpuNanos - first.cpuNanos) / 1e3 / events,
                counted,
                duplicates,
                checkpointsCompleted,
                checkpointsFailed);
    }

    private static void check(String who, boolean isDeduplicated, long events, long counted, long duplicates) {
        if (events == 0) {
            throw new IllegalStateException(who + ": the topic holds no clicks");
        }
        if (counted + duplicates != events) {
            throw new IllegalStateException(String.format(
                    "%s: counted %d and found %d duplicates, together not the %d clicks that were read",
                    who, counted, duplicates, events));
        }
        String distinct = System.getenv("BENCH_DISTINCT");
        // Without dedup, the job must count the duplicates too.
        if (isDeduplicated && distinct != null && !distinct.isEmpty() && counted != Long.parseLong(distinct)) {
            throw new IllegalStateException(
                    String.format("%s: counted %d of %s distinct clicks", who, counted, distinct));
        }
    }
}
