//! Shopping carts: every write adds one item to all that its author found. Whatever happens to
//! replicas and wires, an item whose write was acknowledged is in the cart.

use std::collections::BTreeSet;

use super::history::WriteId;

/// A cart: the number of the write, then all items; an item is named by the write that added it.
pub fn encode(id: WriteId, items: &BTreeSet<WriteId>) -> Vec<u8> {
    let mut text = format!("{id}:{id}");
    items.iter().for_each(|item| text.push_str(&format!(",{item}")));
    text.into_bytes()
}

/// The items of a cart.
pub fn items(value: &[u8]) -> BTreeSet<WriteId> {
    let text = String::from_utf8_lossy(value);
    let (_, items) = text.split_once(':').unwrap_or_default();
    items.split(',').filter_map(|item| item.parse().ok()).collect()
}

/// The items among `acknowledged` that no version has.
pub fn missing(acknowledged: &[WriteId], versions: &[Vec<u8>]) -> Vec<WriteId> {
    let present: BTreeSet<WriteId> = versions.iter().flat_map(|value| items(value)).collect();
    acknowledged.iter().copied().filter(|id| !present.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cart_holds_its_own_item_and_those_found() {
        let cart = encode(7, &BTreeSet::from([2, 5]));
        assert_eq!(items(&cart), BTreeSet::from([2, 5, 7]));
        assert_eq!(super::super::history::number_of(&cart), 7);
    }

    #[test]
    fn items_may_be_in_any_version_and_must_be_in_one() {
        let versions = [encode(3, &BTreeSet::from([1])), encode(4, &BTreeSet::from([2]))];
        assert!(missing(&[1, 2, 3, 4], &versions).is_empty());
        assert_eq!(missing(&[1, 2, 3, 4], &versions[..1]), [2, 4]);
    }
}
