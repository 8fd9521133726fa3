//! What is wrong with a configuration, and what would be right.

use figment::error::Kind;
use thiserror::Error;

/// It has no `next_move()`: a process that cannot read its configuration ends, and an operator corrects the file.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("unknown key '{key}' in {place}{hint}")]
    UnknownKey { key: String, place: String, hint: String },
    #[error("configuration: {0}")]
    Invalid(String),
}

/// `Err` with the text.
pub(super) fn invalid<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.into()))
}

/// An error of the file's syntax, without the line that it is in: that line may hold a secret.
pub(super) fn not_toml(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    ConfigError::Invalid(format!("line {line} is not TOML: {}", error.message()))
}

pub(super) fn explain(error: &figment::Error) -> ConfigError {
    if let Kind::UnknownField(key, known) = &error.kind {
        let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let hint = nearest.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
        let section = error.path.iter().filter(|part| *part != key).cloned().collect::<Vec<_>>().join(".");
        let place = if section.is_empty() { "the top level".to_owned() } else { format!("[{section}]") };
        return ConfigError::UnknownKey { key: key.clone(), place, hint };
    }
    // Never with the value that was found: it may be a secret.
    if let Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) = &error.kind {
        return ConfigError::Invalid(format!(
            "{} has a value of the wrong type: expected {expected}",
            error.path.join(".")
        ));
    }
    ConfigError::Invalid(error.to_string())
}
