// A Rust release build: closures, iterators, a sort with a comparison that burns, generic recursion, a thread.
//
//   rust_release SECONDS
use std::time::{Duration, Instant};

fn burn(mut x: u64, rounds: u32) -> u64 {
    for _ in 0..rounds {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // SAFETY: no instruction; the compiler must keep x.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) x) };
    }
    x
}

#[inline(never)]
fn level(x: u64, left: u32) -> u64 {
    let below = if left == 0 { x } else { level(x + 1, left - 1) };
    burn(below, 100)
}

#[inline(never)]
fn sort(seed: u64) -> u64 {
    let mut v: Vec<u64> = (0..300u64).map(|n| burn(n ^ seed, 3)).collect();
    v.sort_by(|a, b| burn(*a, 50).cmp(&burn(*b, 50)));
    v[0]
}

#[inline(never)]
fn through_dyn(function: &dyn Fn(u64) -> u64, x: u64) -> u64 {
    function(x).wrapping_add(1)
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0.0);
    let start = Instant::now();
    let in_time = move || seconds <= 0.0 || start.elapsed() < Duration::from_secs_f64(seconds);
    let thread = std::thread::spawn(move || {
        let mut x = 1u64;
        while in_time() {
            x = level(x, 15);
        }
        x
    });
    let mut x = 1u64;
    while in_time() {
        x = level(x, 15) ^ sort(x);
        x = through_dyn(&|y| level(y, 5), x);
    }
    std::process::exit((thread.join().unwrap() ^ x == 0) as i32);
}
