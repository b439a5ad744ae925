//! Once a session has seen the shapes of its inputs, a run allocates nothing.
//!
//! The allocator of this program counts. It is a program of its own, with one test, so that nothing
//! else allocates meanwhile.
#![expect(
    unsafe_code,
    reason = "a global allocator that counts and hands on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use lethe_engine::{InputValue, Level, Numerics, Value};
use lethe_tests::{load, model_folder, tensors};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, hence from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of a run after some others on the same shapes.
fn allocations(folder: &Path, data_set: &str) -> usize {
    let session = load(folder, Level::best(), Numerics::Fast, 1);
    let given = tensors(&folder.join(data_set), "input_");
    let values: Vec<Value> = session
        .inputs()
        .iter()
        .map(|info| {
            let found = given.iter().find(|(name, _)| *name == *info.name);
            found
                .map(|(_, tensor)| tensor.clone().into())
                .expect("the data set has every input")
        })
        .collect();
    let inputs: Vec<InputValue<'_>> = values.iter().map(InputValue::from_value).collect();
    let mut bytes = 0;
    let mut run = || {
        session
            .run_ordered(&inputs, &mut |_, output| {
                if let InputValue::Tensor(view) = output {
                    bytes += view.bytes().len();
                }
                Ok(())
            })
            .expect("the model runs");
    };
    for _ in 0..3 {
        run();
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    run();
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(bytes > 0, "there are outputs");
    after - before
}

#[test]
fn a_run_on_known_shapes_allocates_nothing() {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![0u8; 100]));
    assert!(
        ALLOCATIONS.load(Ordering::Relaxed) > before,
        "the allocator counts"
    );
    let counts: Vec<(&str, usize)> = [
        "digits",
        "vibration",
        "minilm_fp32",
        "minilm_qdq",
        "resnet18",
    ]
    .into_iter()
    .filter_map(|name| Some((name, allocations(&model_folder(name)?, "test_data_set_0"))))
    .collect();
    let none: Vec<(&str, usize)> = counts.iter().map(|&(name, _)| (name, 0)).collect();
    assert_eq!(counts, none, "allocations of a run");
}
