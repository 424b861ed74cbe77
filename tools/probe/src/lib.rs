//! Where the simulator reaches into the code it runs: seeded bugs and coverage marks.
//!
//! The only place that lists them. Production code asks [`seeded`] where a known mistake could be
//! made, and says [`mark`] on branches worth seeing in a simulation. Both do something only in
//! builds with debug assertions (`dev`, `test`, and the profile `sim`), and there only on a thread
//! that holds a [`Watch`]. A release build has the constant `false` and nothing.
//!
//! State is kept per thread: one simulated run is one thread, so nothing is shared, and nothing
//! of it can change what a seed replays.

mod bugs;
mod marks;
mod watch;

pub use bugs::Bug;
pub use marks::Mark;
pub use watch::{AVAILABLE, Watch, mark, seeded};

/// An enum whose variants have a name for people and tell what they are.
macro_rules! named {
    (
        $(#[$about:meta])*
        $kind:ident {
            $($(#[doc = $text:literal])+ $variant:ident = $name:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $kind {
            $($(#[doc = $text])+ $variant,)+
        }

        impl $kind {
            /// All there are.
            pub const ALL: &'static [$kind] = &[$($kind::$variant),+];

            /// What people call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $($kind::$variant => $name,)+
                }
            }

            /// What it is, in a sentence.
            pub const fn text(self) -> &'static str {
                match self {
                    $($kind::$variant => concat!($($text),+).trim_ascii(),)+
                }
            }

            /// The one of this name.
            pub fn by_name(name: &str) -> Option<$kind> {
                $kind::ALL.iter().copied().find(|known| known.name() == name)
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use named;
