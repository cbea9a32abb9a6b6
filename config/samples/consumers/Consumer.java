import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.regex.Pattern;

/**
 * Asks every minute which business unit the token of a mounted Secret acts in. Runs as it is, by
 * {@code java Consumer.java}, from Java 17 on.
 *
 * <p>SFMC_DIR is where the Secret is mounted (/sfmc), EVERY the seconds between calls (60).
 */
public class Consumer {
  private static final Path DIR = Path.of(System.getenv().getOrDefault("SFMC_DIR", "/sfmc"));
  private static final double EVERY = Double.parseDouble(System.getenv().getOrDefault("EVERY", "60"));
  private static final Pattern UNIT = Pattern.compile("\"organization\":\\{\"id\":(\\d+)");
  private static final HttpClient CLIENT = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

  public static void main(String[] args) throws InterruptedException {
    try {
      while (true) {
        var unit = UNIT.matcher(get("platform/v1/tokenContext"));
        System.out.println("the token acts in business unit " + (unit.find() ? unit.group(1) : "unknown"));
        Thread.sleep((long) (EVERY * 1000));
      }
    } catch (IOException e) {
      System.err.println(e.getMessage() == null ? e : e.getMessage());
      System.exit(1);
    }
  }

  /** Calls the REST API. */
  private static String get(String path) throws IOException, InterruptedException {
    var request = HttpRequest.newBuilder(URI.create(key("rest_instance_url") + path))
        .timeout(Duration.ofSeconds(30)).header("Authorization", "Bearer " + key("access_token")).build();
    var answer = CLIENT.send(request, BodyHandlers.ofString());
    if (answer.statusCode() != 200) {
      throw new IOException("the call failed: " + answer.statusCode() + " " + answer.body());
    }
    return answer.body();
  }

  /** Returns a key of the Secret. It is read for each call: the files are replaced a few times an hour. */
  private static String key(String name) throws IOException {
    try {
      return Files.readString(DIR.resolve(name));
    } catch (NoSuchFileException e) {
      throw new IOException("no " + name + " in " + DIR + ": is the Secret mounted there, and is the SFMCToken Ready?");
    }
  }
}
