//! Docs come with issue 4.
