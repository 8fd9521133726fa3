//! The parameters of a query string, by name. An unknown name is refused.

use std::collections::BTreeMap;

use thiserror::Error;

/// Query parameters by name.
pub type Parameters = BTreeMap<String, String>;

/// The most of an unknown name that an error repeats.
const NAME_CHARS_SHOWN: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParameterError {
    #[error("parameter '{0}' is given twice: give it once")]
    Twice(String),
    #[error("{name} must be a whole number from 1 to {most}")]
    Number { name: &'static str, most: u32 },
    #[error("parameter '{0}' is not supported here; known: {1}")]
    Unknown(String, String),
}

/// A parameter that is given twice is refused: one of the two values would be ignored.
pub fn by_name(pairs: Vec<(String, String)>) -> Result<Parameters, ParameterError> {
    let mut parameters = Parameters::new();
    for (name, value) in pairs {
        if parameters.contains_key(&name) {
            return Err(ParameterError::Twice(shown(&name)));
        }
        parameters.insert(name, value);
    }
    Ok(parameters)
}

/// A filter that is silently ignored would give a wrong count, so an unknown parameter is an error.
pub fn refuse_unknown(parameters: &Parameters, known: &[&str]) -> Result<(), ParameterError> {
    match parameters.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(ParameterError::Unknown(shown(name), known.join(", "))),
        None => Ok(()),
    }
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_CHARS_SHOWN).collect()
}

/// A number from 1 to `most`, or `default` if the parameter is absent.
pub fn whole_number(
    parameters: &Parameters,
    name: &'static str,
    default: u32,
    most: u32,
) -> Result<u32, ParameterError> {
    let Some(text) = parameters.get(name) else { return Ok(default) };
    text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or(ParameterError::Number { name, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        let pairs = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        let error = by_name(pairs(&["last_minutes", "last_minutes"])).unwrap_err();
        assert_eq!(error.to_string(), "parameter 'last_minutes' is given twice: give it once");
        assert_eq!(by_name(pairs(&["from", "to"])).unwrap().len(), 2);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_are_known() {
        let parameters = Parameters::from([("filter_country".to_owned(), "US".to_owned())]);
        let error = refuse_unknown(&parameters, &["from", "to"]).unwrap_err();
        assert_eq!(error.to_string(), "parameter 'filter_country' is not supported here; known: from, to");
        assert_eq!(refuse_unknown(&parameters, &["filter_country"]), Ok(()));
    }

    #[test]
    fn a_number_is_within_its_limits() {
        let of = |text: &str| whole_number(&Parameters::from([("k".to_owned(), text.to_owned())]), "k", 5, 10);
        assert_eq!((of("1"), of("10")), (Ok(1), Ok(10)));
        for refused in ["0", "11", "-1", "x", ""] {
            assert_eq!(of(refused), Err(ParameterError::Number { name: "k", most: 10 }), "{refused}");
        }
        assert_eq!(whole_number(&Parameters::new(), "k", 5, 10), Ok(5));
    }
}
