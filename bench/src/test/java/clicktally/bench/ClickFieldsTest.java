package clicktally.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import org.junit.jupiter.api.Test;

class ClickFieldsTest {
    /** The golden records of the schema. The Rust decoder is tested against the same file. */
    private static final Path VECTORS = Path.of("..", "proto", "schema", "vectors.json");

    private record Click(long clickId, long campaignId, long adId, long eventTimeMs) {}

    private record Golden(byte[] bytes, List<Click> clicks) {}

    private static List<Golden> goldenRecords() throws IOException {
        var golden = new ArrayList<Golden>();
        for (JsonNode record : new ObjectMapper().readTree(Files.readString(VECTORS)).get("records")) {
            var clicks = new ArrayList<Click>();
            for (JsonNode click : record.get("clicks")) {
                clicks.add(new Click(
                        Long.parseUnsignedLong(click.get("click_id").asText()),
                        click.get("campaign_id").asLong(),
                        click.get("ad_id").asLong(),
                        click.get("event_time_ms").asLong()));
            }
            golden.add(new Golden(HexFormat.of().parseHex(record.get("record_hex").asText()), clicks));
            if (record.has("rows_hex")) {
                golden.add(new Golden(HexFormat.of().parseHex(record.get("rows_hex").asText()), clicks));
            }
        }
        return golden;
    }

    private static List<Click> read(ClickFields fields, byte[] record) {
        var clicks = new ArrayList<Click>();
        fields.open(record);
        while (fields.next()) {
            clicks.add(new Click(fields.clickId(), fields.campaignId(), fields.adId(), fields.eventTimeMs()));
        }
        return clicks;
    }

    @Test
    void singleAndPackedGoldenRecordsReadAsTheSchemaSays() throws IOException {
        var fields = new ClickFields();
        var clicksInRecords = new ArrayList<Integer>();
        for (Golden golden : goldenRecords()) {
            assertEquals(golden.clicks(), read(fields, golden.bytes()));
            assertFalse(fields.next());
            clicksInRecords.add(golden.clicks().size());
        }
        assertTrue(clicksInRecords.contains(1), "a single record is among them");
        long packed = clicksInRecords.stream().filter(clicks -> clicks == 2).count();
        assertEquals(2, packed, "a record packed by columns is among them, and one by rows");
    }

    @Test
    void unknownFieldsOfANewerSchemaAreSkipped() throws IOException {
        Golden golden = goldenRecords().get(0);
        byte[] newer = HexFormat.of()
                // Field 18 is a string, 19 has eight bytes, 20 has four bytes, 21 is a number.
                .parseHex("9201036e6577" + "99010000000000000001" + "a50100000001" + "a801ffffffffffffffffff01");
        byte[] record = Arrays.copyOf(golden.bytes(), golden.bytes().length + newer.length);
        System.arraycopy(newer, 0, record, golden.bytes().length, newer.length);
        assertEquals(golden.clicks(), read(new ClickFields(), record));
    }

    @Test
    void everyTruncationIsRefusedOrLosesWholeClicksOnly() throws IOException {
        var fields = new ClickFields();
        for (Golden golden : goldenRecords()) {
            for (int length = 1; length < golden.bytes().length; length++) {
                byte[] truncated = Arrays.copyOf(golden.bytes(), length);
                try {
                    List<Click> clicks = read(fields, truncated);
                    assertEquals(golden.clicks().subList(0, clicks.size()), clicks);
                } catch (IllegalArgumentException refused) {
                    // The decoder must refuse the record.
                }
            }
        }
    }

    @Test
    void aClickMayNotReachIntoTheNext() {
        // A packed click of two bytes. Its second byte begins a number that only the next click would complete.
        byte[] record = HexFormat.of().parseHex("a206020880" + "a2060101");
        assertThrows(IllegalArgumentException.class, () -> read(new ClickFields(), record));
    }

    @Test
    void whatIsNoProtobufClickIsRefused() {
        for (byte[] record : List.of(
                new byte[] {},
                "{\"click_id\":1}".getBytes(StandardCharsets.UTF_8),
                // This click has only an id.
                new byte[] {8, 1},
                // This wire type is obsolete.
                new byte[] {8, 1, 0x0b})) {
            assertThrows(IllegalArgumentException.class, () -> read(new ClickFields(), record));
        }
    }
}
