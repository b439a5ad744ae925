//! How the arrays of a tensor's data are nested: flat, or as the shape is.

/// What was seen of arrays within arrays, the outermost first.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    /// How many arrays are open.
    depth: usize,
    /// Elements of the arrays at each depth; `None` while the first one is open.
    sizes: Vec<Option<usize>>,
    /// The number of arrays around each element.
    around: Option<usize>,
    /// Whether two arrays or elements of one depth differ.
    is_ragged: bool,
}

impl Nesting {
    /// An array begins.
    pub(super) fn open(&mut self) {
        self.depth += 1;
        if self.sizes.len() < self.depth {
            self.sizes.push(None);
        }
    }

    /// The array that began last ends, with so many elements.
    pub(super) fn close(&mut self, len: usize) {
        self.depth -= 1;
        let size = self.sizes[self.depth].get_or_insert(len);
        self.is_ragged |= *size != len;
    }

    /// An element stands here.
    #[inline]
    pub(super) fn element(&mut self) {
        self.is_ragged |= *self.around.get_or_insert(self.depth) != self.depth;
    }

    /// Checks that the arrays are flat, or nested as a shape.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub(super) fn check(&self, shape: &[usize]) -> Result<(), (String, String)> {
        let sizes: Vec<usize> = self.sizes.iter().map(|size| size.unwrap_or(0)).collect();
        // Below an array without elements there is nothing that could show how it goes on.
        let empty = shape.iter().position(|&size| size == 0);
        let seen = empty.map_or(shape, |at| &shape[..=at]);
        let is_nested = !self.is_ragged && (sizes == shape || sizes == seen);
        if sizes.len() <= 1 && !self.is_ragged || is_nested {
            return Ok(());
        }
        let found = match self.is_ragged {
            true => "arrays that differ in length or depth".into(),
            false => format!("arrays nested as {sizes:?}"),
        };
        Err((format!("one array, or arrays nested as {shape:?}"), found))
    }
}
