package clicktally.bench;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;

/**
 * Reads the fields that counting needs from a raw record without building a message. A record is one {@code Click}, or
 * a {@code ClickBatch} of rows or columns, whose clicks come one after another (proto/schema/click.proto). All peers
 * share this decoder, so that none of them pays for one that is slower than ours.
 *
 * <p>It is a cursor that is reused for every record: {@link #open} a record, then call {@link #next} until it returns
 * false. It skips unknown fields. Only one thread may use it at a time.
 */
public final class ClickFields {
    private static final int BATCH_FIELDS_FROM = 100;
    private static final int COLUMNS_FIELD = 101;
    private static final VarHandle LITTLE_ENDIAN_LONG =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    private static final int VARINT = 0;
    private static final int FIXED_64 = 1;
    private static final int LENGTH_DELIMITED = 2;
    private static final int FIXED_32 = 5;

    private byte[] record = {};
    private int at;
    private int end;
    private boolean isBatch;

    /** The state of the columns being read: the clicks left, and the position of the next click's identity. */
    private int rowsLeft;

    private int clickIdAt;
    private boolean isClickIdConstant;
    private final Numbers campaignIds = new Numbers();
    private final Numbers adIds = new Numbers();
    private final Numbers eventTimeStepsMs = new Numbers();

    private long clickId;
    private long campaignId;
    private long adId;
    private long eventTimeMs;

    /** An unsigned number of 64 bits in a long. */
    public long clickId() {
        return clickId;
    }

    public long campaignId() {
        return campaignId;
    }

    public long adId() {
        return adId;
    }

    /** Milliseconds since the Unix epoch. */
    public long eventTimeMs() {
        return eventTimeMs;
    }

    /** Moves the cursor before the first click of {@code record}. */
    public void open(byte[] record) {
        if (record == null || record.length == 0) {
            throw new IllegalArgumentException("the record is empty");
        }
        if (record[0] == '{') {
            throw new IllegalArgumentException("a JSON click: the peers are measured on Protobuf records only");
        }
        this.record = record;
        this.at = 0;
        this.end = record.length;
        this.rowsLeft = 0;
        // A Click has no field from 100 on, and a ClickBatch none below, so the first tag tells them apart.
        this.isBatch = varint() >>> 3 >= BATCH_FIELDS_FROM;
        this.at = 0;
    }

    /** Reads the next click of the record into the fields. Returns false if none is left. */
    public boolean next() {
        if (!isBatch) {
            if (at == end) {
                return false;
            }
            click(end);
            return true;
        }
        if (rowsLeft > 0) {
            row();
            return true;
        }
        if (at == end) {
            return false;
        }
        long tag = varint();
        if (tag == (BATCH_FIELDS_FROM << 3 | LENGTH_DELIMITED)) {
            click(lengthDelimitedEnd());
        } else if (tag == (COLUMNS_FIELD << 3 | LENGTH_DELIMITED)) {
            columns(lengthDelimitedEnd());
            row();
        } else {
            throw new IllegalArgumentException("a batch has field " + (tag >>> 3) + ", which may hold clicks");
        }
        return true;
    }

    /** Finds the columns and moves the cursor behind them. */
    private void columns(int columnsEnd) {
        int recordEnd = end;
        end = columnsEnd;
        clickIdAt = 0;
        int clickIds = 0;
        int rows = 0;
        campaignIds.none();
        adIds.none();
        eventTimeStepsMs.none();
        while (at < columnsEnd) {
            long tag = varint();
            if (tag == (1 << 3 | LENGTH_DELIMITED)) {
                int columnEnd = lengthDelimitedEnd();
                clickIdAt = at;
                clickIds = (columnEnd - at) / Long.BYTES;
                at = columnEnd;
            } else if (tag == (2 << 3 | LENGTH_DELIMITED)) {
                at = campaignIds.found(lengthDelimitedEnd());
            } else if (tag == (3 << 3 | LENGTH_DELIMITED)) {
                at = adIds.found(lengthDelimitedEnd());
            } else if (tag == (4 << 3 | LENGTH_DELIMITED)) {
                at = eventTimeStepsMs.found(lengthDelimitedEnd());
            } else if (tag == (BATCH_FIELDS_FROM << 3 | VARINT)) {
                rows = (int) varint();
            } else {
                skip(tag);
            }
        }
        end = recordEnd;
        if (rows < 1 || (clickIds != 1 && clickIds != rows)) {
            throw new IllegalArgumentException(clickIds + " identities for " + rows + " clicks");
        }
        isClickIdConstant = clickIds == 1;
        rowsLeft = rows;
        eventTimeMs = 0;
    }

    private void row() {
        rowsLeft--;
        clickId = (long) LITTLE_ENDIAN_LONG.get(record, clickIdAt);
        if (!isClickIdConstant) {
            clickIdAt += Long.BYTES;
        }
        campaignId = campaignIds.next();
        adId = adIds.next();
        long step = eventTimeStepsMs.next();
        eventTimeMs += (step >>> 1) ^ -(step & 1);
        requireFields();
    }

    /** A column of numbers: empty if all are zero, one number if all are equal, or one number for each click. */
    private final class Numbers {
        private int next;
        private int columnEnd;
        private boolean isConstant;
        private long constant;

        private void none() {
            isConstant = true;
            constant = 0;
        }

        /** Begins at the cursor. Returns the end of this column, where the next one begins. */
        private int found(int foundEnd) {
            next = at;
            columnEnd = foundEnd;
            int values = 0;
            for (int i = next; i < foundEnd; i++) {
                values += record[i] >= 0 ? 1 : 0;
            }
            isConstant = values <= 1;
            constant = 0;
            if (values == 1) {
                isConstant = false;
                constant = next();
                isConstant = true;
            }
            return foundEnd;
        }

        private long next() {
            if (isConstant) {
                return constant;
            }
            int recordAt = at;
            int recordEnd = end;
            at = next;
            end = columnEnd;
            long value = varint();
            next = at;
            at = recordAt;
            end = recordEnd;
            return value;
        }
    }

    private void click(int clickEnd) {
        int recordEnd = end;
        // No field of this click may extend into the next one.
        end = clickEnd;
        clickId = 0;
        campaignId = 0;
        adId = 0;
        eventTimeMs = 0;
        while (at < clickEnd) {
            long tag = varint();
            if (tag == (1 << 3 | VARINT)) {
                clickId = varint();
            } else if (tag == (2 << 3 | VARINT)) {
                campaignId = varint();
            } else if (tag == (3 << 3 | VARINT)) {
                adId = varint();
            } else if (tag == (4 << 3 | VARINT)) {
                eventTimeMs = varint();
            } else {
                skip(tag);
            }
        }
        end = recordEnd;
        requireFields();
    }

    private void requireFields() {
        if (clickId == 0 || campaignId == 0 || adId == 0 || eventTimeMs == 0) {
            throw new IllegalArgumentException("a click lacks its id, campaign, ad or event time");
        }
    }

    private long varint() {
        long value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at >= end) {
                throw truncated();
            }
            byte next = record[at++];
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) {
                return value;
            }
        }
        throw new IllegalArgumentException("a number of more than 64 bits before byte " + at);
    }

    private void skip(long tag) {
        switch ((int) tag & 7) {
            case VARINT -> varint();
            case FIXED_64 -> advance(8);
            case LENGTH_DELIMITED -> at = lengthDelimitedEnd();
            case FIXED_32 -> advance(4);
            default -> throw new IllegalArgumentException("a wire type this schema does not use before byte " + at);
        }
    }

    private void advance(int bytes) {
        if (bytes > end - at) {
            throw truncated();
        }
        at += bytes;
    }

    private int lengthDelimitedEnd() {
        long length = varint();
        if (length < 0 || length > end - at) {
            throw truncated();
        }
        return at + (int) length;
    }

    private IllegalArgumentException truncated() {
        return new IllegalArgumentException("truncated or over-long field at byte " + at);
    }
}
