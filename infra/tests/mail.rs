//! Mail through the table: a server that is away for a day loses none, and gets each once.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use punchtrail_infra::{
    mail::{self, Mail, Postman},
    testing::TestDatabase,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Takes mail (RFC 5321), as far as a client asks for it; the first time it has no room.
async fn post_office(listener: TcpListener, taken: Arc<Mutex<Vec<String>>>) {
    let mut refused = false;
    while let Ok((stream, _)) = listener.accept().await {
        let refuses = !std::mem::replace(&mut refused, true);
        let _ = talk(stream, refuses, &taken).await;
    }
}

async fn talk(stream: TcpStream, refuses: bool, taken: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 here\r\n").await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let command = line.split(&[' ', '\r'][..]).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match command.as_str() {
            "EHLO" | "HELO" => "250 here",
            "RCPT" if refuses => "452 no room",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while !mail.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut mail).await?;
                }
                taken.lock().unwrap().push(mail);
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn a_day_without_a_mail_server_loses_no_mail() {
    let database = TestDatabase::new().await;
    let pools = database.pools().await;
    let pool = &pools.writer;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let postman = Postman::new(&format!("smtp://{address}"), None, "clock@example.com").unwrap();
    let mut now = Timestamp::now();
    for n in 0..3 {
        let mut tx = pool.begin().await.unwrap();
        let mail = Mail {
            to: "payroll@example.com".into(),
            subject: format!("Ümläut {n}"),
            body: "It fails.\n.\nSo it does.\n".into(),
        };
        mail::write(&mut tx, &mail, now).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut rounds = 0;
    let until = now + SignedDuration::from_hours(24);
    while now < until {
        assert_eq!(postman.round(pool, now).await.unwrap(), 0);
        now += SignedDuration::from_mins(31);
        rounds += 1;
    }
    assert!(rounds > 40);
    let tries: Vec<i32> =
        sqlx::query_scalar("select tries from mails").fetch_all(pool).await.unwrap();
    assert!(tries.len() == 3 && tries.iter().all(|tries| *tries > 40), "{tries:?}");

    let listener = TcpListener::bind(address).await.unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let office = tokio::spawn(post_office(listener, Arc::clone(&taken)));
    let first = postman.round(pool, now).await.unwrap();
    now += SignedDuration::from_mins(31);
    let second = postman.round(pool, now).await.unwrap();
    assert_eq!(first + second, 3, "one had no room at first");
    let mails = taken.lock().unwrap().clone();
    assert_eq!(mails.len(), 3);
    assert!(mails.iter().all(|mail| mail.contains("To: payroll@example.com")), "{mails:?}");
    assert_eq!(postman.round(pool, now + SignedDuration::from_hours(1)).await.unwrap(), 0);
    office.abort();
    pools.close().await;
    database.close().await;
}

#[test]
fn what_can_not_be_right_is_refused_at_once() {
    for (server, from) in [
        ("", "a@example.com"),
        ("http://example.com", "a@example.com"),
        ("smtp://example.com", "nobody"),
        ("smtp://example.com", ""),
    ] {
        assert!(Postman::new(server, None, from).is_err(), "{server} {from}");
    }
    assert!(Postman::new("smtps://me@example.com", Some("secret\n"), "a@example.com").is_ok());
    for (text, is) in [("a@example.com", true), ("A <a@b.c>", false), ("a", false), ("", false)] {
        assert_eq!(mail::is_address(text), is, "{text}");
    }
}
