//! Shuffle sharding: a flow's hash deals it a hand of queues, so that two flows rarely share all of theirs.
//!
//! Answers to `k8s.io/apiserver/pkg/util/shufflesharding`.

/// The largest hand a hash has entropy for.
pub const HAND_MAX: usize = 15;
/// Bits of the hash that a hand may use up.
const HASH_BITS_MAX: f64 = 60.0;

/// Whether hands of `hand` can be dealt from `deck` queues.
pub fn is_valid(deck: usize, hand: usize) -> bool {
    hand > 0
        && hand <= deck
        && hand <= HAND_MAX
        && ((deck as f64).log2() * hand as f64).ceil() <= HASH_BITS_MAX
}

/// Deals `count` different cards of `[0, deck)`; the hash decides which.
pub fn deal(deck: usize, count: usize, mut hash: u64) -> ([usize; HAND_MAX], usize) {
    let count = count.min(HAND_MAX).min(deck);
    let mut hand = [0; HAND_MAX];
    for (at, slot) in hand.iter_mut().take(count).enumerate() {
        let left = (deck - at) as u64;
        *slot = (hash % left) as usize;
        hash /= left;
    }
    // Each number counts among the cards that are still there: shift it past those dealt before it.
    let drawn = hand;
    for at in 0..count {
        let mut card = drawn[at];
        for earlier in drawn[..at].iter().rev() {
            if card >= *earlier {
                card += 1;
            }
        }
        hand[at] = card;
    }
    (hand, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_are_of_different_cards() {
        for hash in (0..200_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let (hand, count) = deal(64, 6, hash);
            let mut cards = hand[..count].to_vec();
            cards.sort_unstable();
            cards.dedup();
            assert_eq!(cards.len(), 6, "{hand:?}");
            assert!(cards.iter().all(|card| *card < 64));
        }
    }

    #[test]
    fn every_hand_is_as_likely() {
        let mut seen = [0_u32; 120];
        for hash in 0..(6 * 5 * 4 * 100_u64) {
            let (hand, _) = deal(6, 3, hash);
            let index = hand[0] * 20
                + (0..6).filter(|c| *c != hand[0]).position(|c| c == hand[1]).unwrap() * 4
                + (0..6).filter(|c| *c != hand[0] && *c != hand[1]).position(|c| c == hand[2]).unwrap();
            seen[index] += 1;
        }
        assert!(seen.iter().all(|count| *count == 100), "{seen:?}");
    }

    #[test]
    fn sizes_have_limits() {
        assert!(is_valid(128, 6) && is_valid(1, 1) && is_valid(512, 6));
        assert!(!is_valid(0, 1) && !is_valid(4, 5) && !is_valid(1024, 7) && !is_valid(8, 0));
    }
}
