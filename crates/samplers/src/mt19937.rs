//! The Mersenne Twister, the engine under the reference's CPU generator.

const STATE_WORDS: usize = 624;
const MIDDLE_WORD: usize = 397;
const TWIST: u32 = 0x9908_b0df;
const UPPER_BIT: u32 = 0x8000_0000;
const LOWER_BITS: u32 = 0x7fff_ffff;

/// MT19937 by Matsumoto and Nishimura, seeded with one 32-bit word.
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; STATE_WORDS],
    next_idx: usize,
}

impl Mt19937 {
    pub fn new(seed: u32) -> Self {
        let mut state = [0; STATE_WORDS];
        state[0] = seed;
        for idx in 1..STATE_WORDS {
            let previous: u32 = state[idx - 1];
            state[idx] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(idx as u32);
        }
        Self { state, next_idx: STATE_WORDS }
    }

    pub fn next_u32(&mut self) -> u32 {
        if self.next_idx == STATE_WORDS {
            self.refill();
        }
        let mut word = self.state[self.next_idx];
        self.next_idx += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Two words as one number, the first drawn on top, as the reference joins them.
    pub fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        (high << 32) | u64::from(self.next_u32())
    }

    fn refill(&mut self) {
        for idx in 0..STATE_WORDS {
            let next = self.state[(idx + 1) % STATE_WORDS];
            let joined = (self.state[idx] & UPPER_BIT) | (next & LOWER_BITS);
            let twisted = (joined >> 1) ^ if next & 1 == 1 { TWIST } else { 0 };
            self.state[idx] = self.state[(idx + MIDDLE_WORD) % STATE_WORDS] ^ twisted;
        }
        self.next_idx = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_ten_thousandth_number() {
        // The C++ standard fixes this value for the default seed, 5489.
        let mut engine = Mt19937::new(5489);
        let last = (0..10_000).map(|_| engine.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn joins_two_words_with_the_first_on_top() {
        let (mut words, mut pairs) = (Mt19937::new(7), Mt19937::new(7));
        let (high, low) = (u64::from(words.next_u32()), u64::from(words.next_u32()));
        assert_eq!(pairs.next_u64(), high << 32 | low);
    }
}
