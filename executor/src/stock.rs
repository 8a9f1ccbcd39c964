//! The stock handlers: for trying a factory out, measuring it, and breaking it on purpose.
//!
//! | kind | args | result |
//! | --- | --- | --- |
//! | `math_add`, `math_subtract`, `math_multiply`, `math_divide` | `{"a": 2, "b": 3}`, `request_id` is ignored | a number |
//! | `noop` | anything | null |
//! | `echo` | anything | its args |
//! | `sleep` | `{"ms": 20}` or `{"for": "2s"}` | null |
//! | `fail` | all optional: `times`, `permanent`, `message`, `panic` | null, once it succeeds |

mod echo;
mod fail;
mod math;
mod noop;
mod sleep;

pub use echo::Echo;
pub use fail::{Fail, fail};
pub use math::{Pair, add, divide, multiply, subtract};
pub use noop::Noop;
pub use sleep::{Sleep, sleep};

use crate::Registry;

/// `registry` with the stock handlers added.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry
        .register("math_add", |pair: Pair| std::future::ready(add(&pair)))
        .register("math_subtract", |pair: Pair| std::future::ready(subtract(&pair)))
        .register("math_multiply", |pair: Pair| std::future::ready(multiply(&pair)))
        .register("math_divide", |pair: Pair| std::future::ready(divide(&pair)))
        .register_handler("noop", Noop)
        .register_handler("echo", Echo)
        .register("sleep", sleep)
        .register("fail", fail)
}
