//! Random numbers for load generation: small, seeded and reproducible. Owns the generator and the
//! zipfian sampler; knows nothing of keys.

/// xoshiro256++, seeded through splitmix64, so that one seed gives one run.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Random {
        let mut mix = seed;
        let mut next = || {
            mix = mix.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = mix;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        Random { state: [next(), next(), next(), next()] }
    }

    /// 64 uniform bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = self.state;
        let result = s0.wrapping_add(s3).rotate_left(23).wrapping_add(s0);
        let (mut s2, mut s3) = (s2 ^ s0, s3 ^ s1);
        let (s1n, s0n) = (s1 ^ s2, s0 ^ s3);
        s2 ^= s1 << 17;
        s3 = s3.rotate_left(45);
        self.state = [s0n, s1n, s2, s3];
        result
    }

    /// Uniform in `0..bound` (`bound` > 0), by multiplication: the bias is below `bound / 2^64`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `[0, 1)` with 53 bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Fills a buffer with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Zipfian ranks `0..n` with exponent `s`: rank `r` has weight `1 / (r + 1)^s`.
///
/// Rejection-inversion after Hörmann and Derflinger (1996): exact for every `n`, no table and no
/// sum over `n` beforehand, about one logarithm and one exponential a sample.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    exponent: f64,
    h_x1: f64,
    h_n: f64,
    shortcut: f64,
}

impl Zipf {
    /// A sampler over `n` ranks; `n` >= 1 and `exponent` > 0.
    pub fn new(n: u64, exponent: f64) -> Zipf {
        assert!(n >= 1, "a distribution needs at least one rank");
        assert!(exponent > 0.0 && exponent.is_finite(), "the exponent must be positive");
        let n = n as f64;
        let h_x1 = h_integral(1.5, exponent) - 1.0;
        let h_n = h_integral(n + 0.5, exponent);
        let shortcut =
            2.0 - h_integral_inverse(h_integral(2.5, exponent) - h(2.0, exponent), exponent);
        Zipf { n, exponent, h_x1, h_n, shortcut }
    }

    /// The next rank, 0 being the most frequent.
    #[inline]
    pub fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.h_n + random.unit() * (self.h_x1 - self.h_n);
            let x = h_integral_inverse(u, self.exponent);
            let k = x.round().clamp(1.0, self.n);
            if k - x <= self.shortcut
                || u >= h_integral(k + 0.5, self.exponent) - h(k, self.exponent)
            {
                return k as u64 - 1;
            }
        }
    }
}

fn h(x: f64, exponent: f64) -> f64 {
    (-exponent * x.ln()).exp()
}

/// Integral of `h`, shifted so that it works for exponents around 1.
fn h_integral(x: f64, exponent: f64) -> f64 {
    let log_x = x.ln();
    expm1_over((1.0 - exponent) * log_x) * log_x
}

fn h_integral_inverse(x: f64, exponent: f64) -> f64 {
    let t = (x * (1.0 - exponent)).max(-1.0);
    (ln1p_over(t) * x).exp()
}

/// `ln(1 + x) / x`, continued through 0.
fn ln1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x * (0.5 - x / 3.0) }
}

/// `(e^x - 1) / x`, continued through 0.
fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x * 0.5 * (1.0 + x / 3.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers() {
        let (mut a, mut b, mut c) = (Random::new(7), Random::new(7), Random::new(8));
        let first: Vec<u64> = (0..16).map(|_| a.next_u64()).collect();
        assert_eq!(first, (0..16).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert_ne!(first, (0..16).map(|_| c.next_u64()).collect::<Vec<_>>());
    }

    #[test]
    fn below_stays_below_and_covers() {
        let mut random = Random::new(1);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
    }

    /// The sampled frequencies agree with the exact weights, below, at and above exponent 1.
    #[test]
    fn zipf_matches_the_exact_weights() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let n = 100u64;
            let zipf = Zipf::new(n, exponent);
            let mut random = Random::new(42);
            let samples = 400_000u32;
            let mut counts = vec![0u32; n as usize];
            for _ in 0..samples {
                counts[zipf.sample(&mut random) as usize] += 1;
            }
            let weight = |rank: u64| ((rank + 1) as f64).powf(-exponent);
            let total: f64 = (0..n).map(weight).sum();
            for rank in 0..n {
                let expected = f64::from(samples) * weight(rank) / total;
                let deviation = (f64::from(counts[rank as usize]) - expected).abs();
                // Five standard deviations of a binomial count.
                assert!(
                    deviation < 5.0 * expected.sqrt() + 1.0,
                    "exponent {exponent} rank {rank}: {} against {expected:.1}",
                    counts[rank as usize]
                );
            }
        }
    }

    #[test]
    fn zipf_of_one_rank_is_that_rank() {
        let zipf = Zipf::new(1, 0.99);
        let mut random = Random::new(3);
        assert!((0..1000).all(|_| zipf.sample(&mut random) == 0));
    }

    #[test]
    fn zipf_of_many_ranks_stays_inside() {
        let n = 2_000_000_000;
        let zipf = Zipf::new(n, 0.99);
        let mut random = Random::new(5);
        assert!((0..100_000).all(|_| zipf.sample(&mut random) < n));
    }
}
