//! The client library's example, at a cluster of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "../../net/examples/shopping_cart.rs"]
#[allow(dead_code)] // its main
mod example;
mod support;
#[path = "support/wires.rs"]
mod wires;

use std::collections::BTreeSet;

use coronet_net::client::Found;

fn carts(found: &Found) -> BTreeSet<&str> {
    found.versions.iter().map(|version| std::str::from_utf8(&version.value).unwrap()).collect()
}

#[test]
fn two_writes_at_the_same_time_stand_side_by_side_until_they_are_merged() {
    let cluster = cluster::Cluster::start::<3>(3);
    let addresses = cluster.addresses().join(",");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Twice: the first cart is there when the second begins.
    for _ in 0..2 {
        let (side_by_side, end) = runtime.block_on(example::shop(&addresses)).unwrap();
        assert_eq!(carts(&side_by_side), ["eggs\nmilk", "bread\nmilk"].into());
        assert_eq!(carts(&end), ["bread\nbutter\neggs\nmilk"].into());
    }
}
