//! How prompts share a step; must not know whose they are.

/// A piece cut off a prompt has at least this, unless it ends the prompt or is the oldest's. Unit: tokens; default
/// 32; a guess: below it a piece costs a whole pass of the weights for little. More of it: a few tokens of a step's
/// budget stay unused.
const LEAST_PIECE: u32 = 32;

/// Shares `budget` tokens among prompts that have `left` tokens to compute, oldest first. The oldest has half for
/// certain; the rest goes to the shortest first, so that a short prompt does not wait behind a long one, and what
/// they leave is the oldest's again. Hence the oldest ends after at most `left / (budget / 2)` steps, and each is the
/// oldest some day.
pub(super) fn share(budget: u32, left: &[u32]) -> Vec<u32> {
    let mut shares = vec![0; left.len()];
    let Some(&oldest) = left.first() else { return shares };
    let certain = oldest.min(budget.div_ceil(2));
    let mut room = budget - certain;
    let mut others: Vec<usize> = (1..left.len()).collect();
    others.sort_by_key(|&index| (left[index], index));
    for index in others {
        let share = left[index].min(room);
        if share == left[index] || share >= LEAST_PIECE {
            shares[index] = share;
            room -= share;
        }
    }
    shares[0] = certain + room.min(oldest - certain);
    shares
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn alone_a_prompt_has_the_whole_budget() {
        assert_eq!(share(512, &[2000]), [512]);
        assert_eq!(share(512, &[100]), [100]);
    }

    #[test]
    fn short_prompts_pass_a_long_one_that_still_moves() {
        assert_eq!(share(512, &[100_000, 90, 5000, 60]), [256, 90, 106, 60]);
    }

    #[test]
    fn a_sliver_goes_to_the_oldest_instead() {
        assert_eq!(share(512, &[100_000, 240, 5000]), [272, 240, 0]);
    }

    #[test]
    fn a_budget_of_one_goes_to_the_oldest() {
        assert_eq!(share(1, &[3, 1, 1]), [1, 0, 0]);
        assert_eq!(share(0, &[3]), [0]);
    }
}
