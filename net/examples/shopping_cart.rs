//! Two clients put things into one shopping cart at the same time; neither loses anything.
//!
//! Start a cluster, then the example, with the addresses of its nodes if they are others:
//!
//! ```text
//! coronetd dev --nodes 3
//! cargo run -p coronet-net --example shopping_cart -- 127.0.0.1:4720,127.0.0.1:4730
//! ```
//!
//! A cart is a text with an item per line. Merging two carts keeps what is in either.
#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;

use coronet_net::client::{Client, ClientError, Found, RequestOptions, Version};

const KEY: &[u8] = b"cart/alice";

/// The items of one version of the cart.
fn items(value: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(value).lines().map(str::to_owned).collect()
}

/// What is in any of the versions.
fn merged(versions: &[Version]) -> BTreeSet<String> {
    versions.iter().flat_map(|version| items(&version.value)).collect()
}

fn cart(items: BTreeSet<String>) -> Vec<u8> {
    items.into_iter().collect::<Vec<_>>().join("\n").into_bytes()
}

/// The helper for everyday use: reads, merges, adds, writes, and sees to what others wrote
/// meanwhile. Adding an item a second time changes nothing, as `update` demands.
async fn add(client: &Client, item: &str) -> Result<Found, ClientError> {
    let put_in = |versions: &[Version]| {
        let mut items = merged(versions);
        items.insert(item.to_owned());
        Some(cart(items))
    };
    client.update(KEY, put_in).await
}

fn show(who: &str, found: &Found) {
    println!("{who} sees {} version(s):", found.versions.len());
    for version in &found.versions {
        println!("    {:?}", items(&version.value));
    }
}

/// What comes of one cart: the versions that two writes at the same time left, and the end.
pub async fn shop(addresses: &str) -> Result<(Found, Found), ClientError> {
    // Two clients that know nothing of each other: a phone and a laptop.
    let phone = Client::connect(addresses).await?;
    let laptop = Client::connect(addresses).await?;

    phone.delete(KEY).await?;
    show("phone", &add(&phone, "milk").await?);

    // Both read the cart, and both write what they make of it.
    let seen = [phone.get(KEY).await?, laptop.get(KEY).await?];
    for (client, seen, item) in [(&phone, &seen[0], "eggs"), (&laptop, &seen[1], "bread")] {
        let mut items = merged(&seen.versions);
        items.insert(item.to_owned());
        let options = RequestOptions::new().context(seen.context.clone());
        client.put_with(KEY, &cart(items), &options).await?;
    }

    // Neither write knew of the other: both are kept, side by side.
    let side_by_side = phone.get(KEY).await?;
    show("phone", &side_by_side);

    // Whoever writes next with what was read replaces both by their merge.
    show("laptop, with butter", &add(&laptop, "butter").await?);
    let end = phone.get(KEY).await?;
    show("phone", &end);
    Ok((side_by_side, end))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ClientError> {
    let addresses = std::env::args().nth(1);
    shop(addresses.as_deref().unwrap_or("127.0.0.1:4720,127.0.0.1:4730")).await.map(drop)
}
