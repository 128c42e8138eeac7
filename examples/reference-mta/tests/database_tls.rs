//! A shared spool behind TLS: mail is taken over a database connection whose certificate was verified, and over no other.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use postwright_testkit::postgres::{DATABASE, Server, USER};
use postwright_testkit::skip;
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// Gives the server a certificate for `localhost`; the PEM of it.
fn switch_tls_on(server: &Server) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = server.socket_folder();
    let owner = std::fs::metadata(&folder).unwrap();
    for (name, text) in [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())] {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    server.ask("ALTER SYSTEM SET ssl = on");
    server.ask("SELECT pg_reload_conf()");
    wait_until("the server has TLS on", PATIENCE, || server.ask("SHOW ssl") == "on");
    made.cert.pem()
}

fn config(dir: &Path, address: &str, smart_host: std::net::SocketAddr, more: &str) -> std::path::PathBuf {
    let text = format!(
        "hostname = \"mta.test\"\n[spool]\npostgres = \"{address} user={USER} dbname={DATABASE}\"\n{more}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\n[delivery]\nsmart_host = \"{smart_host}\"\n\
         [authentication]\ncheck = false\n",
    );
    let file = dir.join("mta.toml");
    std::fs::write(&file, text).unwrap();
    file
}

const BODY: &[u8] = b"Subject: x\r\n\r\nx\r\n";

#[test]
fn the_database_is_spoken_to_over_tls_that_was_verified() {
    let Some(server) = Server::start() else {
        skip!("database-tls", "PostgreSQL is not installed");
    };
    wait_until("the database answers", PATIENCE, || server.ask("SELECT 1") == "1");
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let network =
        format!("host=localhost hostaddr=127.0.0.1 port={} sslmode=require", server.address().port());
    let refused = |more: &str| {
        let file = config(dir.path(), &network, receiver.address, more);
        let (status, complaint) = Mta::try_with_config(&file).err().unwrap();
        assert!(!status.success() && complaint.contains("spool.postgres"), "{complaint}");
    };
    // A server without TLS, and then one that nobody vouches for.
    refused("");
    let certificate = switch_tls_on(&server);
    refused("");
    refused("postgres_roots = \"/nonexistent/roots.pem\"");

    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, certificate).unwrap();
    let more = format!("postgres_roots = {roots:?}");
    let mta = Mta::with_config(&config(dir.path(), &network, receiver.address, &more));
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE NOT ssl AND client_port > 0";
    assert_eq!(server.ask(plain), "0", "no connection of ours is in clear text");
    wait_until("it is delivered", PATIENCE, || receiver.count() == 1);
    drop(mta);

    // A socket needs no TLS and has none.
    let socket = format!("host={} port={}", server.socket_folder().display(), server.address().port());
    let mta = Mta::with_config(&config(dir.path(), &socket, receiver.address, ""));
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    wait_until("it is delivered", PATIENCE, || receiver.count() == 2);
}
