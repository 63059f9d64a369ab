//! Depth: longest paths through a graph, and the ranks and deciles of a model's convolutions.

/// The rank of each depth among the distinct depths, from 0: convolutions at the same depth share a rank.
pub fn rank(depths: &[usize]) -> Vec<usize> {
    let mut distinct = depths.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    depths.iter().map(|depth| distinct.partition_point(|other| other < depth)).collect()
}

/// `conv_depth` / `max_conv_depth`, in 0..=1; 0 where a model has only one rank.
pub fn conv_depth_norm(conv_depth: usize, max_conv_depth: usize) -> f64 {
    if max_conv_depth == 0 { 0.0 } else { conv_depth as f64 / max_conv_depth as f64 }
}

/// The decile 0..=9 of `conv_depth` / `max_conv_depth` in [0, .1], (.1, .2], ... (.9, 1]; 0 where a model has
/// only one rank.
pub fn depth_decile(conv_depth: usize, max_conv_depth: usize) -> u8 {
    if max_conv_depth == 0 {
        return 0;
    }
    // In integers: 0.3 * 10 is not 3 in binary floating point, and edges belong to the lower decile.
    let tenths = (conv_depth as u128 * 10).div_ceil(max_conv_depth as u128);
    tenths.saturating_sub(1).min(9) as u8
}

/// A directed graph whose vertices count for a path's length or not.
#[derive(Debug, Default)]
pub struct Dag {
    vertices: Vec<Vertex>,
    /// (from, to); the same edge may stand here twice.
    edges: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Vertex {
    length: usize,
    source: bool,
}

impl Dag {
    /// Adds a vertex and returns its number (0, 1, ...). `counted`: it makes a path through it one longer;
    /// `source`: paths may begin at it.
    pub fn add_vertex(&mut self, counted: bool, source: bool) -> usize {
        self.vertices.push(Vertex { length: usize::from(counted), source });
        self.vertices.len() - 1
    }

    /// Adds an edge between vertices, which may be added later; an edge from or to one that never is counts for
    /// nothing.
    pub fn add_edge(&mut self, from: usize, to: usize) {
        self.edges.push((from, to));
    }

    /// For each vertex the number of counted vertices, itself included, on the longest path to it from any
    /// source; `None` where no source reaches it.
    ///
    /// # Errors
    /// The number of a vertex on a cycle.
    pub fn longest_paths(&self) -> Result<Vec<Option<usize>>, usize> {
        let successors = Successors::of(self);
        let mut waiting = vec![0_usize; self.vertices.len()];
        successors.to.iter().for_each(|&to| waiting[to] += 1);

        let mut ready: Vec<usize> = (0..self.vertices.len()).filter(|&v| waiting[v] == 0).collect();
        // Until a vertex is taken, the longest path to, but without, it.
        let mut longest: Vec<Option<usize>> = self.vertices.iter().map(|v| v.source.then_some(0)).collect();
        let mut done = 0;
        while let Some(vertex) = ready.pop() {
            done += 1;
            longest[vertex] = longest[vertex].map(|length| length + self.vertices[vertex].length);
            for &next in successors.after(vertex) {
                longest[next] = longest[next].max(longest[vertex]);
                waiting[next] -= 1;
                if waiting[next] == 0 {
                    ready.push(next);
                }
            }
        }
        if done == self.vertices.len() { Ok(longest) } else { Err(self.on_cycle(&waiting)) }
    }

    /// A vertex on a cycle, where `waiting` is not 0 for those on or behind a cycle.
    fn on_cycle(&self, waiting: &[usize]) -> usize {
        // Each vertex left over has a predecessor left over: going back often enough ends on the cycle.
        let mut before = vec![None; self.vertices.len()];
        for &(from, to) in &self.edges {
            if waiting.get(from).is_some_and(|&n| n > 0) && to < before.len() {
                before[to] = Some(from);
            }
        }
        let mut vertex = waiting.iter().position(|&n| n > 0).unwrap_or(0);
        for _ in 0..self.vertices.len() {
            vertex = before[vertex].unwrap_or(vertex);
        }
        vertex
    }
}

/// Every vertex's successors, in one array.
struct Successors {
    start: Vec<usize>,
    to: Vec<usize>,
}

impl Successors {
    fn of(dag: &Dag) -> Self {
        let count = dag.vertices.len();
        let edges = || dag.edges.iter().filter(|(from, to)| *from < count && *to < count);
        let mut start = vec![0; count + 1];
        edges().for_each(|&(from, _)| start[from + 1] += 1);
        for vertex in 0..count {
            start[vertex + 1] += start[vertex];
        }
        let mut free = start.clone();
        let mut to = vec![0; start[count]];
        for &(from, next) in edges() {
            to[free[from]] = next;
            free[from] += 1;
        }
        Successors { start, to }
    }

    fn after(&self, vertex: usize) -> &[usize] {
        &self.to[self.start[vertex]..self.start[vertex + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_depths_share_a_rank() {
        assert_eq!(rank(&[7, 3, 7, 100, 0]), [2, 1, 2, 3, 0]);
        assert_eq!(rank(&[]), [0_usize; 0]);
    }

    #[test]
    fn deciles_are_closed_on_the_right() {
        let deciles = |max: usize| (0..=max).map(|depth| depth_decile(depth, max)).collect::<Vec<_>>();
        assert_eq!(deciles(0), [0]);
        assert_eq!(deciles(1), [0, 9]);
        assert_eq!(deciles(10), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        // 10 * k / 7 = 0, 1.43, 2.86, 4.29, 5.71, 7.14, 8.57, 10
        assert_eq!(deciles(7), [0, 1, 2, 4, 5, 7, 8, 9]);
        // 0.7 / 0.1 and 0.3 / 0.1 are not 7 and 3 in floating point.
        assert_eq!((depth_decile(21, 30), depth_decile(9, 30)), (6, 2));
        assert_eq!(depth_decile(usize::MAX, usize::MAX), 9);
    }

    #[test]
    fn norm_is_zero_with_one_rank() {
        assert_eq!(conv_depth_norm(0, 0), 0.0);
        assert_eq!(conv_depth_norm(1, 4), 0.25);
    }

    /// Vertices `(counted, source)` and edges.
    fn dag(vertices: &[(bool, bool)], edges: &[(usize, usize)]) -> Dag {
        let mut dag = Dag::default();
        vertices.iter().for_each(|&(counted, source)| _ = dag.add_vertex(counted, source));
        edges.iter().for_each(|&(from, to)| dag.add_edge(from, to));
        dag
    }

    #[test]
    fn the_longest_path_decides_and_constants_have_none() {
        // 4 -> 3 -> 0 and 4 -> 0; 1 is a constant in front of 0; 2 counts for nothing between 0 and 5.
        let vertices = [(true, false), (true, false), (false, false), (true, false), (true, true), (true, false)];
        let graph = dag(&vertices, &[(4, 3), (3, 0), (4, 0), (1, 0), (0, 2), (2, 5), (2, 5)]);
        assert_eq!(graph.longest_paths(), Ok(vec![Some(3), None, Some(3), Some(2), Some(1), Some(4)]));
    }

    #[test]
    fn a_cycle_is_named_not_what_is_behind_it() {
        let vertices = [(true, false); 5];
        let graph = dag(&vertices, &[(0, 1), (1, 2), (2, 1), (2, 3), (3, 4)]);
        assert!(matches!(graph.longest_paths(), Err(1 | 2)));
        assert_eq!(dag(&[(true, true)], &[(0, 0)]).longest_paths(), Err(0));
    }

    #[test]
    fn a_million_vertices_in_a_row_need_no_stack() {
        let mut graph = Dag::default();
        for vertex in 0..1_000_000 {
            graph.add_vertex(true, vertex == 0);
            graph.add_edge(vertex, vertex + 1);
        }
        assert_eq!(graph.longest_paths().unwrap().last(), Some(&Some(1_000_000)));
    }
}
