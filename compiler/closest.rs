//! Suggestions for misspelt names.

/// The known name that is most likely meant by `name`, if one is near enough.
pub(crate) fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, suggestions confuse more than they help.
    const NEAR: f64 = 0.7;
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|&(similarity, _)| similarity >= NEAR)
        // The first of equals, so that the suggestion does not depend on chance.
        .fold(
            None,
            |best: Option<(f64, &str)>, one| if best.is_some_and(|best| best.0 >= one.0) { best } else { Some(one) },
        )
        .map(|(_, candidate)| candidate)
}
