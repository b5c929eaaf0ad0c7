//! How devices that were cut off spread when they come back, so that they don't come as a herd.

use crate::{DeviceId, Digest};

/// How long a device waits before it delivers after a reconnect, in milliseconds: the same for one
/// device each time, evenly spread over devices, below `spread_s` seconds. The server counts on it
/// too, so as to know when those who came back will call.
pub fn reconnect_ms(device: DeviceId, spread_s: u32) -> u64 {
    let digest = Digest::of(device.uuid().as_bytes());
    let mut high = [0; 8];
    high.copy_from_slice(&digest.0[..8]);
    let spread_ms = u128::from(spread_s) * 1_000;
    ((u128::from(u64::from_be_bytes(high)) * spread_ms) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    proptest::proptest! {
        #[test]
        fn the_spread_stays_inside(
            bytes in proptest::prelude::any::<[u8; 16]>(), spread_s in 0u32..10_000
        ) {
            let device = DeviceId(Uuid::from_bytes(bytes));
            let wait = reconnect_ms(device, spread_s);
            let inside = wait < u64::from(spread_s) * 1_000 || spread_s == 0 && wait == 0;
            proptest::prop_assert!(inside);
            proptest::prop_assert_eq!(wait, reconnect_ms(device, spread_s));
        }
    }

    #[test]
    fn the_spread_is_even() {
        let mut buckets = [0u32; 6];
        for n in 0..6_000u128 {
            let wait = reconnect_ms(DeviceId(Uuid::from_u128(n)), 60);
            buckets[(wait / 10_000) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (850..1_150).contains(&count)), "{buckets:?}");
    }
}
