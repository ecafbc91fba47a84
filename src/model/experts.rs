//! A mixture of experts: which of them a token goes through, and the sum of what they give.
//!
//! Experts are done one after the other, each with all tokens that chose it; so a batch reads an expert's weights once, and
//! a token's sum is taken in the order of its experts' numbers however many tokens are run at once.

use super::forward::Pass;
use super::spec::Experts as Mixture;
use super::weights::{Affine, Dense, Experts, Layer, Matrix};
use crate::ops::matmul::{self, matmul, matmul_with};
use crate::ops::{dot, elementwise};
use crate::quant::Inputs;
use crate::session::scratch::Sized;

/// The least that the sum of chosen shares is divided by: binary16's smallest normal number, as in llama.cpp.
const SMALLEST_SUM: f32 = 6.103_515_6e-5;

/// An expert that a token goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Route {
    /// Its number.
    pub expert: u32,
    /// How much it counts.
    pub share: f32,
}

/// Adds what its experts give to each hidden state. `s.inputs` are the states' norms.
pub(super) fn mix(pass: &Pass<'_>, s: &mut Sized<'_>, layer: &Layer, experts: &Experts) {
    let Some(mixture) = pass.spec.experts else { return };
    let (size, count, weights) = (pass.spec.embedding, pass.count, &pass.model.weights);
    matmul(pass.pool, pass.level, s.router, &[weights.view(&experts.router)], s.inputs);
    for (shares, routes) in
        s.router.chunks_exact_mut(mixture.count).zip(s.routes.chunks_exact_mut(mixture.used))
    {
        choose(shares, routes, mixture);
    }
    s.mixed.fill(0.0);
    for expert in 0..mixture.count {
        let mut chosen = 0;
        for (token, routes) in s.routes.chunks_exact(mixture.used).enumerate() {
            if let Some(route) = routes.iter().find(|route| route.expert as usize == expert) {
                s.chosen[chosen] = (token, route.share);
                chosen += 1;
            }
        }
        if chosen == 0 {
            continue;
        }
        let chosen = &s.chosen[..chosen];
        // The norms of those tokens alone, unless it is all of them.
        let inputs: &Inputs = match (chosen.len() == count, &layer.ffn_norm) {
            (false, Some(norm)) => {
                let x = &*s.x;
                let vector = |index: usize| &x[chosen[index].0 * size..][..size];
                pass.normed_at(s.some_inputs, &vector, chosen.len(), size, norm);
                &*s.some_inputs
            }
            _ => &*s.inputs,
        };
        let views = experts.up.map(|matrix| weights.view(&matrix.next(expert)));
        matmul::gated(pass.pool, pass.level, s.gated, &views, inputs, &|gates, ups, _| {
            elementwise::silu_gate(pass.level, gates, ups);
        });
        add_product(pass, s.mixed, s.projected, &experts.down.next(expert), s.gated, chosen);
    }
    if let Some(shared) = &experts.shared {
        for (token, chosen) in s.chosen[..count].iter_mut().enumerate() {
            let share = match experts.shared_gate.is_empty() {
                true => 1.0,
                // Of the norm as floats: what the router reads, too.
                false => sigmoid(dot::dot(pass.level, s.inputs.floats(token), &experts.shared_gate)),
            };
            *chosen = (token, share);
        }
        shared_expert(pass, s, shared);
    }
    let scale = pass.spec.residual_scale;
    for (x, mixed) in s.x.chunks_exact_mut(size).zip(s.mixed.chunks_exact(size)) {
        elementwise::add_scaled(x, scale, mixed);
    }
}

fn shared_expert(pass: &Pass<'_>, s: &mut Sized<'_>, shared: &Dense) {
    pass.up(shared, s.inputs, s.gated, &mut []);
    add_product(pass, s.mixed, s.projected, &shared.down, s.gated, &s.chosen[..pass.count]);
}

/// Adds a matrix times each column, times a share, to the sum of the token whose column it is.
fn add_product(
    pass: &Pass<'_>,
    mixed: &mut [f32],
    room: &mut [f32],
    matrix: &Matrix,
    inputs: &Inputs,
    chosen: &[(usize, f32)],
) {
    let size = pass.spec.embedding;
    if let [(token, share)] = *chosen {
        let view = pass.model.weights.view(matrix);
        let sum = &mut mixed[token * size..][..size];
        matmul_with(pass.pool, pass.level, sum, &[view], inputs, &|sum, products, _| {
            elementwise::add_scaled(sum, share, products);
        });
        return;
    }
    let room = &mut room[..chosen.len() * size];
    pass.project(room, &[*matrix], inputs, &Affine::default());
    for (&(token, share), products) in chosen.iter().zip(room.chunks_exact(size)) {
        elementwise::add_scaled(&mut mixed[token * size..][..size], share, products);
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + elementwise::exp(-x))
}

/// The softmax of a token's router logits, and its largest shares, the lowest expert first where two are equal. A token
/// whose logits are NaN goes through the first experts, and is NaN after them.
fn choose(shares: &mut [f32], routes: &mut [Route], mixture: Mixture) {
    let peak = shares.iter().fold(f32::NEG_INFINITY, |peak, &share| if share > peak { share } else { peak });
    let mut total = 0.0;
    for share in shares.iter_mut() {
        *share = elementwise::exp(*share - peak);
        total += *share;
    }
    let mut chosen = 0.0;
    for route in routes.iter_mut() {
        let mut best: Option<usize> = None;
        for (expert, &share) in shares.iter().enumerate() {
            // What has been chosen is below every share.
            if share != f32::NEG_INFINITY && best.is_none_or(|best| share > shares[best]) {
                best = Some(expert);
            }
        }
        let Some(best) = best else { return };
        *route = Route { expert: best as u32, share: shares[best] / total };
        chosen += route.share;
        shares[best] = f32::NEG_INFINITY;
    }
    if mixture.normalized {
        let sum = if chosen < SMALLEST_SUM { SMALLEST_SUM } else { chosen };
        routes.iter_mut().for_each(|route| route.share /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXTURE: Mixture = Mixture { count: 4, used: 2, normalized: false, shared: 0, shared_gate: false };

    #[test]
    fn the_likeliest_experts_are_chosen_with_their_shares_and_the_lowest_of_equals() {
        let logit = libm::logf;
        let mut routes = [Route::default(); 2];
        choose(&mut [logit(0.1), logit(0.2), logit(0.4), logit(0.3)], &mut routes, MIXTURE);
        assert_eq!(routes.map(|route| route.expert), [2, 3]);
        assert!((routes[0].share - 0.4).abs() < 1e-6 && (routes[1].share - 0.3).abs() < 1e-6);
        choose(&mut [1.0; 4], &mut routes, MIXTURE);
        assert_eq!(routes, [0, 1].map(|expert| Route { expert, share: 0.25 }));
    }

    #[test]
    fn shares_sum_to_one_where_they_are_normalized() {
        let mut routes = [Route::default(); 2];
        choose(&mut [0.0, 5.0, 4.0, -1.0], &mut routes, Mixture { normalized: true, ..MIXTURE });
        assert!((routes[0].share + routes[1].share - 1.0).abs() < 1e-6, "{routes:?}");
    }

    #[test]
    fn logits_that_are_no_numbers_choose_different_experts_and_stay_visible() {
        let mut routes = [Route::default(); 2];
        choose(&mut [f32::NAN; 4], &mut routes, MIXTURE);
        assert_eq!(routes.map(|route| route.expert), [0, 1]);
        assert!(routes.iter().all(|route| route.share.is_nan()));
    }
}
