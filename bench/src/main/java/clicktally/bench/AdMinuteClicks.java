package clicktally.bench;

/**
 * The output of a Flink job: the clicks of one ad in one minute of event time.
 *
 * @param minute minutes since the Unix epoch
 */
public record AdMinuteClicks(long adId, long minute, long clicks) {}
