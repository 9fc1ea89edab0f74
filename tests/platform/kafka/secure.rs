//! TLS and SASL, by configuration.

use std::process::Command;

use super::broker::{Broker, create, event, topic_name, until_counted};
use crate::harness::{Server, config};

const PASSWORD: &str = "test-password";

/// A key store for the broker with a certificate of its own, and that certificate as PEM; made by Java's keytool.
fn certificate(folder: &std::path::Path) -> (String, String) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (store, pem) = (path("broker.p12"), path("broker.pem"));
    let keytool = |arguments: &[&str]| {
        let done = Command::new("keytool").args(arguments).output().expect("keytool comes with Java");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    };
    let common = ["-keystore", &store, "-storepass", PASSWORD, "-alias", "broker"];
    let name = ["-dname", "CN=localhost", "-ext", "SAN=IP:127.0.0.1,DNS:localhost"];
    let key = ["-genkeypair", "-keyalg", "RSA", "-validity", "365", "-storetype", "PKCS12"];
    keytool(&[&key[..], &common, &name].concat());
    keytool(&[&["-exportcert", "-rfc", "-file", &pem][..], &common].concat());
    (store, pem)
}

/// Lines for a broker that speaks SASL over TLS on the port of its plain listener plus two.
fn listener(port: u16, store: &str) -> String {
    let user = "org.apache.kafka.common.security.plain.PlainLoginModule required user_bifold=\"hush\"";
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{},SASL_SSL://127.0.0.1:{}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
ssl.keystore.location={store}
ssl.keystore.password={PASSWORD}
ssl.keystore.type=PKCS12
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config={user};
",
        port + 1,
        port + 2,
        port + 2,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_is_read_over_tls_with_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let (store, pem) = certificate(folder.path());
    let broker = Broker::start_with(|port| listener(port, &store));
    let topic = topic_name("secure");
    broker.create_topic(&topic, 1, &[]).await;
    let sender = broker.producer();
    (0..50).for_each(|id| sender.send(&topic, 0, &event(id)));
    sender.flush();
    let secure = Broker::at(format!("127.0.0.1:{}", broker.port() + 2));
    let data = folder.path().join("data");
    let mut config = config(&data);
    config.kafka.brokers = Some(secure.address.clone());
    let properties = [
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", &pem),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "bifold"),
        ("sasl_password", "hush"),
    ];
    config.kafka.properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let server = Server::start_with(config.clone()).await;
    create(&server.client, &secure, &topic, "").await;
    until_counted(&server.client, 50).await;
    server.stop().await;
    config.kafka.properties.insert("sasl_password".into(), "wrong".into());
    let server = Server::start_with(config).await;
    let sql = format!("CREATE STREAM t (a INT) WITH (connector = 'kafka', topic = '{topic}')");
    let refused = server.client.refused(&sql).await;
    assert_eq!(refused["code"], "storage_unavailable", "{refused}");
    assert!(!refused.to_string().contains("wrong"), "{refused}");
    server.stop().await;
    broker.script("wipe", "");
}
