//! Key maps as data: how another layout's names become the names that a model asks for.

use nn::view::View;
use std::ops::Range;

/// One line of a key map. Names are segments between dots; `{}` stands for a number, the same ones in both names.
/// What follows the matched segments of a name follows its new names too.
#[derive(Clone, Debug)]
pub struct Rule {
    from: String,
    to: Vec<String>,
    take: Take,
}

/// What becomes of the tensor.
#[derive(Clone, Copy, Debug)]
enum Take {
    Whole,
    /// Rows in these proportions, each part under a name of its own.
    Split(&'static [usize]),
    /// The second half of the rows before the first.
    SwapHalves,
    Transpose,
    /// A 1x1 convolution that the model has as a linear layer.
    Pointwise,
}

impl Rule {
    pub(super) fn whole(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { from: from.into(), to: vec![to.into()], take: Take::Whole }
    }

    pub(super) fn split(from: &str, parts: &'static [usize], to: &[&str]) -> Self {
        debug_assert_eq!(parts.len(), to.len());
        Self { from: from.to_owned(), to: to.iter().map(|name| (*name).to_owned()).collect(), take: Take::Split(parts) }
    }

    pub(super) fn swap_halves(from: &str, to: &str) -> Self {
        Self { take: Take::SwapHalves, ..Self::whole(from, to) }
    }

    pub(super) fn transpose(from: &str, to: &str) -> Self {
        Self { take: Take::Transpose, ..Self::whole(from, to) }
    }

    pub(super) fn pointwise(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self { take: Take::Pointwise, ..Self::whole(from, to) }
    }
}

/// What a tensor becomes, by the first rule that knows its name. `None`: no rule knows it, or not in this shape.
pub fn translate(rules: &[Rule], name: &str, shape: &[usize]) -> Option<Vec<(String, View)>> {
    let segments: Vec<&str> = name.split('.').collect();
    let (rule, numbers, rest) = rules.iter().find_map(|rule| {
        let pattern: Vec<&str> = rule.from.split('.').collect();
        matched(&pattern, &segments).map(|(numbers, rest)| (rule, numbers, rest))
    })?;
    let renamed = |to: &String| [&[filled(to, &numbers).as_str()], rest].concat().join(".");
    Some(rule.to.iter().map(renamed).zip(rule.take.views(shape)?).collect())
}

/// As [`translate`], for layers whose names have underscores for dots, as LoRA files spell them. The shape is that of
/// the layer's weight, or of anything with the same rows.
pub fn translate_flat(rules: &[Rule], name: &str, shape: &[usize]) -> Option<Vec<(String, View)>> {
    let segments: Vec<&str> = name.split('_').collect();
    let (rule, numbers, rest) = rules.iter().find_map(|rule| {
        let pattern: Vec<&str> = rule.from.split(['.', '_']).collect();
        matched(&pattern, &segments).map(|(numbers, rest)| (rule, numbers, rest))
    })?;
    let renamed = |to: &String| [&[filled(to, &numbers).replace('.', "_").as_str()], rest].concat().join("_");
    Some(rule.to.iter().map(renamed).zip(rule.take.views(shape)?).collect())
}

/// The numbers in the places of `{}`, and the segments that the pattern leaves.
fn matched<'a, 'b>(pattern: &[&str], name: &'b [&'a str]) -> Option<(Vec<&'a str>, &'b [&'a str])> {
    let (head, rest) = name.split_at_checked(pattern.len())?;
    let mut numbers = Vec::new();
    for (pattern, segment) in pattern.iter().zip(head) {
        match *pattern {
            "{}" if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) => numbers.push(*segment),
            exact if exact == *segment => {}
            _ => return None,
        }
    }
    Some((numbers, rest))
}

fn filled(pattern: &str, numbers: &[&str]) -> String {
    numbers.iter().fold(pattern.to_owned(), |text, number| text.replacen("{}", number, 1))
}

impl Take {
    /// One view for each new name. `None`: the tensor has not the shape for it.
    fn views(self, shape: &[usize]) -> Option<Vec<View>> {
        match self {
            Self::Whole => Some(vec![View::whole(shape)]),
            Self::Split(parts) => {
                proportions(shape, parts)?.into_iter().map(|rows| View::rows_of(shape, &[rows])).collect()
            }
            Self::SwapHalves => {
                let mut halves = proportions(shape, &[1, 1])?;
                halves.reverse();
                Some(vec![View::rows_of(shape, &halves)?])
            }
            Self::Transpose => Some(vec![View::transposed(shape)?]),
            Self::Pointwise => Some(vec![View::pointwise(shape)?]),
        }
    }
}

fn proportions(shape: &[usize], parts: &[usize]) -> Option<Vec<Range<usize>>> {
    let (n_rows, total) = (*shape.first()?, parts.iter().sum::<usize>());
    let unit = n_rows.is_multiple_of(total).then_some(n_rows / total)?;
    let mut end = 0;
    let next = |part: &usize| {
        let start = end;
        end += part * unit;
        start..end
    };
    Some(parts.iter().map(next).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_whole_segments_renames() {
        let rules = [Rule::whole("a.{}.b_c", "x.{}.y"), Rule::split("a.{}.q", &[1, 3], &["k.{}", "v.{}"])];
        let names = |name: &str, shape: &[usize]| {
            let views = translate(&rules, name, shape)?;
            Some(views.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
        };
        assert_eq!(names("a.12.b_c.weight", &[4]), Some(vec!["x.12.y.weight".into()]));
        assert_eq!(names("a.1.q.bias", &[8]), Some(vec!["k.1.bias".into(), "v.1.bias".into()]));
        assert_eq!(names("a.1.q.bias", &[7]), None, "seven rows do not split in four");
        assert_eq!(names("a.x.b_c", &[4]), None);
        assert_eq!(names("a.1.b_cd", &[4]), None);
        assert_eq!(names("a", &[4]), None);
        let flat = translate_flat(&rules, "a_1_b_c_more", &[4]).unwrap();
        assert_eq!(flat[0].0, "x_1_y_more");
        assert!(translate_flat(&rules, "a_1_b_cmore", &[4]).is_none());
    }
}
