//! Where tokens are: `(axis 0, row, column)`. Text lies at the origin, a picture's tokens on a grid.

/// Every text token is at the origin.
pub fn text_positions(n_tokens: usize) -> Vec<Vec<f64>> {
    vec![vec![0.0; 3]; n_tokens]
}

/// Row by row. `index` tells pictures of one sequence apart: 0 for the one that is painted, 1 for a reference.
pub fn image_positions(index: usize, rows: usize, columns: usize) -> Vec<Vec<f64>> {
    let position = |at: usize| vec![index as f64, (at / columns) as f64, (at % columns) as f64];
    (0..rows * columns).map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_walked_row_by_row() {
        assert_eq!(image_positions(1, 2, 2), [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);
    }
}
