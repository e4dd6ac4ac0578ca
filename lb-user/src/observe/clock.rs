//! The clock of flow rows: ticks of 2^shift jiffies.

use std::{fs, sync::OnceLock, thread::sleep, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The kernel's tick rate (CONFIG_HZ).
pub fn hz() -> u32 {
    static HZ: OnceLock<u32> = OnceLock::new();
    *HZ.get_or_init(|| configured().unwrap_or_else(measured))
}

/// From the kernel's config, where the system keeps it.
fn configured() -> Option<u32> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let config = fs::read_to_string(format!("/boot/config-{release}")).ok()?;
    config.lines().find_map(|line| line.strip_prefix("CONFIG_HZ=")?.parse().ok())
}

/// From how fast jiffies pass: the nearest of the rates a kernel can be built with.
fn measured() -> u32 {
    const RATES: [u32; 4] = [100, 250, 300, 1000];
    let sample = || Some((jiffies_listed()?, now_ns()));
    let first = sample();
    sleep(Duration::from_millis(200));
    let (Some((from, start)), Some((to, end))) = (first, sample()) else { return 250 };
    let rate = ((to - from) * 1_000_000_000 / (end - start).max(1)) as u32;
    RATES.into_iter().min_by_key(|known| known.abs_diff(rate)).unwrap_or(250)
}

fn jiffies_listed() -> Option<u64> {
    let list = fs::read_to_string("/proc/timer_list").ok()?;
    list.lines().find_map(|line| line.trim().strip_prefix("jiffies: ")?.parse().ok())
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The shift that makes a tick nearest to a second.
pub fn tick_shift(hz: u32) -> u32 {
    (0..16).min_by_key(|shift| hz.abs_diff(1 << shift)).unwrap_or(8)
}

/// The present time in ticks, as the kernel programs see it.
pub fn now_ticks(hz: u32) -> u32 {
    // jiffies64 starts five minutes before it overflows 32 bits (linux/jiffies.h, INITIAL_JIFFIES).
    let start = (300u32.wrapping_mul(hz)).wrapping_neg() as u64;
    let jiffies = start + (now_ns() as u128 * hz as u128 / 1_000_000_000) as u64;
    (jiffies >> tick_shift(hz)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_about_a_second() {
        for (hz, shift) in [(100, 7), (250, 8), (300, 8), (1000, 10)] {
            assert_eq!(tick_shift(hz), shift, "{hz}");
        }
    }
}
