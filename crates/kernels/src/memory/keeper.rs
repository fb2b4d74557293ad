//! An allocator that keeps large blocks which were freed, for those that are wanted next.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks from this size on are kept. Below, the system's allocator is as fast.
const LARGE_BYTES: usize = 1 << 20;
/// What is kept at most.
const KEPT_BYTES_MAX: usize = 1 << 30;
/// Blocks that are kept at most.
const N_KEPT_MAX: usize = 64;
/// How many times what is wanted a block may have for what is soon given back.
const TOO_LARGE: usize = 4;
/// Of large blocks: what the system's allocator gives without being asked. One that needs more is not kept.
const ALIGNMENT: usize = 16;

static KEPT: Mutex<Kept> = Mutex::new(Kept::NOTHING);

thread_local! {
    /// Whether what this thread takes is soon given back.
    static IS_BRIEF: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, but that large blocks which are freed are kept for the next ones, up to a gibibyte of them. A
/// program makes it its global allocator; what is kept is all its threads'.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keeper;

/// Gives back what [`Keeper`] keeps: before memory is taken that will not be given back soon.
pub fn release() {
    while let Some(block) = { kept().oldest() } {
        block.free();
    }
    kept().forget_peak();
}

/// What `take` allocates is soon given back, so it may lie in a block that is too large for it: that costs nothing, and
/// mapping memory anew does. Weights in such blocks would waste them for good.
pub(super) fn briefly<T>(take: impl FnOnce() -> T) -> T {
    IS_BRIEF.set(true);
    let taken = take();
    IS_BRIEF.set(false);
    taken
}

// SAFETY: every block is the system allocator's, of the layout that `whole` makes of the wanted one, or a larger one that
// is known to be lent; a kept one is in nobody else's hands.
unsafe impl GlobalAlloc for Keeper {
    // SAFETY: the caller keeps the trait's promises.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = whole(layout) else {
            // SAFETY: the caller's promises are the system's too.
            return unsafe { System.alloc(layout) };
        };
        let bytes_max = if IS_BRIEF.get() { whole.size().saturating_mul(TOO_LARGE) } else { whole.size() };
        if let Some(start) = { kept().take(whole.size(), bytes_max) } {
            return start;
        }
        // SAFETY: a whole is never empty.
        made_anew(unsafe { System.alloc(whole) }, whole)
    }

    // SAFETY: the caller keeps the trait's promises.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = whole(layout) else {
            // SAFETY: the caller's promises are the system's too.
            return unsafe { System.alloc_zeroed(layout) };
        };
        // Fresh pages are zeros, made by whichever threads write to them first; a kept block would be cleared here, by one.
        // SAFETY: a whole is never empty.
        made_anew(unsafe { System.alloc_zeroed(whole) }, whole)
    }

    // SAFETY: the caller keeps the trait's promises.
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let Some(whole) = whole(layout) else {
            // SAFETY: the caller's promises are the system's too.
            return unsafe { System.dealloc(start, layout) };
        };
        if let Some(oldest) = { kept().give(start, whole.size()) } {
            oldest.free();
        }
        give_back_surplus();
    }

    // SAFETY: the caller keeps the trait's promises.
    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (whole(layout), whole(wanted)) {
            // SAFETY: the caller's promises are the system's too.
            (None, None) => unsafe { System.realloc(start, layout, size) },
            (Some(old), Some(new)) if old == new => start,
            // The system moves pages, not bytes.
            (Some(old), Some(new)) if !{ kept().has_lent(start) } => {
                // SAFETY: the block was made with the old whole.
                let moved = unsafe { System.realloc(start, old, new.size()) };
                if !moved.is_null() {
                    kept().replace(old.size(), new.size());
                }
                moved
            }
            _ => {
                // SAFETY: the caller's promises; the new block is another one, and as large as what is copied.
                unsafe {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        start.copy_to_nonoverlapping(moved, layout.size().min(size));
                        self.dealloc(start, layout);
                    }
                    moved
                }
            }
        }
    }
}

/// Notes a block that is the system's own, if it made one.
fn made_anew(start: *mut u8, whole: Layout) -> *mut u8 {
    if !start.is_null() {
        kept().replace(0, whole.size());
        give_back_surplus();
        ask_for_large_pages(start, whole.size());
    }
    start
}

fn give_back_surplus() {
    while let Some(block) = { kept().surplus() } {
        block.free();
    }
}

/// The layout that a large block really has; of any other block, none. Sizes that differ by less than an eighth are often
/// the same.
fn whole(layout: Layout) -> Option<Layout> {
    if layout.size() < LARGE_BYTES || layout.align() > ALIGNMENT {
        return None;
    }
    let step = (layout.size().next_power_of_two() / 16).max(LARGE_BYTES / 16);
    let size = layout.size().checked_next_multiple_of(step)?;
    Layout::from_size_align(size, ALIGNMENT).ok()
}

/// A block of a whole's size.
struct Block {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: no thread writes through it.
unsafe impl Send for Block {}

impl Block {
    fn free(self) {
        // SAFETY: the block is the system's, of this layout, and its owner uses it no more.
        unsafe { System.dealloc(self.start, Layout::from_size_align_unchecked(self.bytes, ALIGNMENT)) };
    }
}

struct Kept {
    /// The oldest first.
    blocks: [Option<Block>; N_KEPT_MAX],
    n: usize,
    bytes: usize,
    /// Blocks in use that are larger than their layouts tell.
    lent: [Option<Block>; N_KEPT_MAX],
    /// Of all large blocks in use.
    bytes_used: usize,
    /// The most that ever was in use.
    bytes_used_max: usize,
}

/// Nothing that holds this lock allocates.
fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    const NOTHING: Self = Self {
        blocks: [const { None }; N_KEPT_MAX],
        n: 0,
        bytes: 0,
        lent: [const { None }; N_KEPT_MAX],
        bytes_used: 0,
        bytes_used_max: 0,
    };

    /// The smallest block of at least `bytes` and at most `bytes_max`; of several, the newest, which is the likeliest to be
    /// in a cache.
    fn take(&mut self, bytes: usize, bytes_max: usize) -> Option<*mut u8> {
        let sizes = self.blocks[..self.n].iter().flatten().map(|block| block.bytes).enumerate();
        let fits = sizes.filter(|(_, size)| (bytes..=bytes_max).contains(size));
        let (place, size) = fits.min_by_key(|(place, size)| (*size, Reverse(*place)))?;
        let free = self.lent.iter().position(Option::is_none);
        if size > bytes && free.is_none() {
            return None;
        }
        let block = self.remove(place)?;
        self.replace(0, size);
        let start = block.start;
        if let Some(free) = free.filter(|_| size > bytes) {
            self.lent[free] = Some(block);
        }
        Some(start)
    }

    /// A block in use takes the place of another.
    fn replace(&mut self, old: usize, new: usize) {
        self.bytes_used = self.bytes_used + new - old;
        self.bytes_used_max = self.bytes_used_max.max(self.bytes_used);
    }

    fn has_lent(&self, start: *mut u8) -> bool {
        self.lent.iter().flatten().any(|block| block.start == start)
    }

    /// Keeps a block that was in use; `bytes` is what its layout tells. Gives the oldest if there is no place for it.
    fn give(&mut self, start: *mut u8, bytes: usize) -> Option<Block> {
        let oldest = if self.n == N_KEPT_MAX { self.oldest() } else { None };
        let is_this = |lent: &&mut Option<Block>| lent.as_ref().is_some_and(|block| block.start == start);
        let lent = self.lent.iter_mut().find(is_this).and_then(Option::take);
        let block = lent.unwrap_or(Block { start, bytes });
        self.bytes_used -= block.bytes;
        self.bytes += block.bytes;
        self.blocks[self.n] = Some(block);
        self.n += 1;
        oldest
    }

    /// The oldest block, if all of them are more than is worth keeping: with what is in use, a quarter more than ever was
    /// in use, so that keeping makes a program hardly larger.
    fn surplus(&mut self) -> Option<Block> {
        let worth = self.bytes_used_max - self.bytes_used + self.bytes_used_max / 4;
        (self.bytes > worth.min(KEPT_BYTES_MAX)).then(|| self.oldest()).flatten()
    }

    fn oldest(&mut self) -> Option<Block> {
        (self.n > 0).then(|| self.remove(0)).flatten()
    }

    fn remove(&mut self, place: usize) -> Option<Block> {
        let block = self.blocks[place].take()?;
        self.blocks[place..self.n].rotate_left(1);
        self.n -= 1;
        self.bytes -= block.bytes;
        Some(block)
    }

    fn forget_peak(&mut self) {
        self.bytes_used_max = self.bytes_used;
    }
}

/// Backed by large pages, a block costs a quarter of the time when it is first written.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(start: *mut u8, bytes: usize) {
    use std::ffi::{c_int, c_void};

    /// Blocks from this size on are worth it.
    const LARGE_PAGES_BYTES: usize = 4 << 20;
    /// Of a page, at most; advice must begin on one.
    const PAGE_BYTES: usize = 64 << 10;
    const MADV_HUGEPAGE: c_int = 14;

    // SAFETY: the C library's own declaration.
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    if start.is_null() || bytes < LARGE_PAGES_BYTES {
        return;
    }
    let begin = start.addr().next_multiple_of(PAGE_BYTES);
    let end = (start.addr() + bytes) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: the pages lie within the block, and the advice changes no value. Refused, it is no loss.
    unsafe { madvise(start.with_addr(begin).cast(), end.saturating_sub(begin), MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_start: *mut u8, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 4).unwrap()
    }

    /// The tests of this file share what is kept, so one test makes all the claims about it.
    #[test]
    fn a_freed_block_is_the_next_one_of_its_size_until_all_are_released() {
        let keeper = Keeper;
        let state = || {
            let kept = kept();
            (kept.n, kept.bytes)
        };
        // SAFETY: blocks are freed once, with their layouts, and written within their bounds.
        unsafe {
            let first = keeper.alloc(layout(3 * MIB));
            first.write_bytes(7, 3 * MIB);
            keeper.dealloc(first, layout(3 * MIB));
            // A little less makes the same whole.
            let second = keeper.alloc(layout(3 * MIB - 5));
            assert_eq!(first, second);
            let larger = keeper.realloc(second, layout(3 * MIB - 5), 3 * MIB);
            assert_eq!(larger, second);
            let moved = keeper.realloc(larger, layout(3 * MIB), 9 * MIB);
            assert!((0..3 * MIB).all(|idx| moved.add(idx).read() == 7));
            moved.add(9 * MIB - 1).write(1);
            let small = keeper.realloc(moved, layout(9 * MIB), 100);
            assert!((0..100).all(|idx| small.add(idx).read() == 7));
            let large = keeper.realloc(small, layout(100), 9 * MIB);
            assert_eq!(large, moved);
            assert!((0..100).all(|idx| large.add(idx).read() == 7));
            keeper.dealloc(large, layout(9 * MIB));

            // What is made anew takes the place of what is kept.
            assert_eq!(state(), (1, 9 * MIB));
            let zeros = keeper.alloc_zeroed(layout(4 * MIB));
            assert!((0..4 * MIB).all(|idx| zeros.add(idx).read() == 0));
            assert_eq!(state(), (0, 0));
            keeper.dealloc(zeros, layout(4 * MIB));

            let blocks: Vec<_> = (0..N_KEPT_MAX + 3).map(|_| keeper.alloc(layout(MIB))).collect();
            blocks.into_iter().for_each(|block| keeper.dealloc(block, layout(MIB)));
            assert_eq!(state(), (N_KEPT_MAX, N_KEPT_MAX * MIB));
            // What is soon given back may lie in a block that is too large, and gives all of it back.
            let larger = keeper.alloc(layout(8 * MIB));
            keeper.dealloc(larger, layout(8 * MIB));
            let other = keeper.alloc(layout(5 * MIB));
            assert_ne!(other, larger);
            keeper.dealloc(other, layout(5 * MIB));
            let larger = keeper.alloc(layout(8 * MIB));
            keeper.dealloc(larger, layout(8 * MIB));
            let brief = briefly(|| keeper.alloc(layout(6 * MIB)));
            assert_eq!(brief, larger);
            brief.write_bytes(9, 6 * MIB);
            let moved = keeper.realloc(brief, layout(6 * MIB), 7 * MIB);
            assert!((0..6 * MIB).all(|idx| moved.add(idx).read() == 9));
            keeper.dealloc(moved, layout(7 * MIB));
            assert_eq!(keeper.alloc(layout(8 * MIB)), larger);
            keeper.dealloc(larger, layout(8 * MIB));

            let huge = keeper.alloc(layout(KEPT_BYTES_MAX - 1));
            keeper.dealloc(huge, layout(KEPT_BYTES_MAX - 1));
            assert_eq!(state(), (1, KEPT_BYTES_MAX));
            release();
            assert_eq!(state(), (0, 0));
        }
    }

    #[test]
    fn a_whole_is_an_eighth_larger_at_most_and_small_or_aligned_blocks_are_the_systems() {
        for bytes in [MIB, MIB + 1, 5 * MIB + 3, 1_000_000_007] {
            let size = whole(layout(bytes)).unwrap().size();
            assert!((bytes..=bytes + bytes / 8 + MIB / 16).contains(&size), "{bytes} {size}");
            assert_eq!(whole(layout(size)).unwrap().size(), size);
        }
        assert_eq!(whole(layout(MIB - 1)), None);
        assert_eq!(whole(Layout::from_size_align(MIB, 64).unwrap()), None);
    }
}
