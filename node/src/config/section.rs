//! One section of the file: the only place that writes its keys.

/// Declares a section. Each key is written once, as its documentation, name, type, default and bound. The parser, the
/// check, `config show`, the errors about unknown keys and `docs/configuration.md` follow from that line.
macro_rules! section {
    (
        $(#[$meta:meta])*
        [$section:literal] pub struct $name:ident {
            $($(#[doc = $doc:literal])+ pub $key:ident: $kind:ty = $default:expr, in $bound:expr;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $kind,)+
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($key: $default,)+ }
            }
        }

        impl $name {
            /// # Errors
            /// Names the first key whose value is out of its bound.
            fn check_keys(&self) -> Result<(), super::error::ConfigError> {
                $(super::bound::check($section, stringify!($key), &$bound, &self.$key)?;)+
                Ok(())
            }

            /// Each key, what it may be, and its documentation.
            #[cfg(test)]
            pub(super) fn keys() -> Vec<(&'static str, String, &'static str)> {
                fn allowed<T>(bound: &impl super::bound::Bound<T>, _: fn(&$name) -> &T) -> String {
                    bound.allowed()
                }
                vec![$((
                    stringify!($key),
                    allowed(&$bound, |section: &$name| &section.$key),
                    concat!($($doc),+),
                ),)+]
            }
        }
    };
}

pub(super) use section;
