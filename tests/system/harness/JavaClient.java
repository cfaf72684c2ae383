// Both of Java's HTTP clients, a line each for every URL; the proxy's user is "sandbox", its password TOKEN.
import java.net.*;
import java.net.http.*;
public class JavaClient {
    static String byConnection(String url) throws Exception {
        HttpURLConnection c = (HttpURLConnection) new URL(url).openConnection();
        return c.getResponseCode() + " " + c.getResponseMessage();
    }
    static String byClient(String url) throws Exception {
        HttpClient client = HttpClient.newBuilder().authenticator(Authenticator.getDefault()).build();
        HttpResponse<String> r = client.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString());
        return r.statusCode() + " " + r.version() + " " + r.headers().firstValue("x-deny-reason").orElse(r.body().trim());
    }
    public static void main(String[] args) throws Exception {
        String token = System.getenv("TOKEN");
        Authenticator.setDefault(new Authenticator() {
            protected PasswordAuthentication getPasswordAuthentication() { return new PasswordAuthentication("sandbox", token.toCharArray()); }
        });
        for (String url : args) {
            try { System.out.println(byConnection(url)); } catch (java.io.IOException e) { System.out.println(e.getMessage()); }
            try { System.out.println(byClient(url)); } catch (java.io.IOException e) { System.out.println(e.getMessage()); }
        }
    }
}
