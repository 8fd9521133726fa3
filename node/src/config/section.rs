//! One section of the file: the only place that writes its keys.

/// Declares a section. Each key is written once, as its documentation, name, type and default. The parser, `config
/// show`, the errors about unknown keys and `docs/configuration.md` follow from that line.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ pub $key:ident: $kind:ty = $default:expr,)+
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

        #[cfg(test)]
        impl $name {
            /// Each key with its documentation.
            pub(super) const KEYS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($key), concat!($($doc),+)),)+];
        }
    };
}

pub(super) use section;
