import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;

/** PostgreSQL's JDBC driver: what a connection says of itself. Arguments: URL, user, password. */
public final class Jdbc {
    public static void main(String[] args) throws Exception {
        try (Connection c = DriverManager.getConnection(args[0], args[1], args[2]);
             Statement s = c.createStatement();
             ResultSet r = s.executeQuery(
                 "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")) {
            r.next();
            System.out.println("{\"who\": \"" + r.getString(1) + "\", \"ssl\": " + r.getBoolean(2) + "}");
        }
    }
}
