//! mimalloc as the process's allocator.
//!
//! Requests are trees of small strings that are made on one thread and dropped on another, which is what mimalloc is
//! for. The `mimalloc` crate asks for an alignment with every block, also where any block has it; mimalloc then takes
//! a slow way for sizes that are no power of two, the maps of trees among them.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// What every block of at least this size is aligned to (`MI_MAX_ALIGN_SIZE`).
const ALIGN_ALWAYS: usize = 16;

/// See the module.
pub struct Allocator;

/// Whether any block of this size will do. Smaller ones are aligned to their size's power of two.
fn any_block(layout: Layout) -> bool {
    layout.align() <= ALIGN_ALWAYS && layout.align() <= layout.size()
}

// SAFETY: mimalloc returns blocks of at least the size asked for, aligned as asked for or, by `any_block`, as every
// block of that size is; it takes back what it gave out, whichever of its functions that was, from any thread; it
// returns null when there is no memory, and does not unwind.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size may be asked for, and a layout's alignment is a power of two.
        let block = unsafe {
            if any_block(layout) {
                mi_malloc(layout.size())
            } else {
                mi_malloc_aligned(layout.size(), layout.align())
            }
        };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let block = unsafe {
            if any_block(layout) {
                mi_zalloc(layout.size())
            } else {
                mi_zalloc_aligned(layout.size(), layout.align())
            }
        };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller says that `block` came from here.
        unsafe { mi_free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let plain = layout.align() <= ALIGN_ALWAYS && layout.align() <= size;
        // SAFETY: the caller says that `block` came from here; else as in `alloc`.
        let block = unsafe {
            if plain {
                mi_realloc(block.cast(), size)
            } else {
                mi_realloc_aligned(block.cast(), size, layout.align())
            }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        for size in (1..200).chain([632, 1000, 4096, 8200, 100_000]) {
            for align in [1, 2, 4, 8, 16, 32, 4096] {
                let layout = Layout::from_size_align(size, align).expect("a power of two");
                // SAFETY: the size is not zero, and each block is given back once with its own layout.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert_eq!(block as usize % align, 0, "{size} aligned to {align}");
                    assert!((0..size).all(|at| *block.add(at) == 0));
                    block.write_bytes(7, size);
                    let grown = Allocator.realloc(block, layout, size * 2);
                    assert_eq!(grown as usize % align, 0, "{size} grown, aligned to {align}");
                    assert!((0..size).all(|at| *grown.add(at) == 7));
                    Allocator.dealloc(grown, Layout::from_size_align(size * 2, align).expect("as before"));
                }
            }
        }
    }
}
