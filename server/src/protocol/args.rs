//! The words of one request.

use std::fmt;

use bytes::Bytes;

/// Where a word lies in its frame.
pub(super) type Span = (u32, u32);

/// So many words need no allocation: `SET key value PX 100 NX` and everything shorter.
const INLINE: usize = 6;

/// The words of one request: one reference to the bytes that were read, and where each word
/// lies in them. Taking a word out as [`Bytes`] shares the read buffer and copies nothing, which
/// also means that it keeps the whole buffer alive: copy what is small and lives long.
#[derive(Clone, Default)]
pub struct Args {
    frame: Bytes,
    spans: Spans,
}

impl Args {
    /// Words that lie in `frame`. Every span must.
    pub(super) fn new(frame: Bytes, spans: Spans) -> Args {
        debug_assert!(
            spans.as_slice().iter().all(|(start, end)| start <= end && *end as usize <= frame.len())
        );
        Args { frame, spans }
    }

    /// A request that was not read from a socket.
    pub fn from_words<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> Args {
        let mut frame = Vec::new();
        let mut spans = Spans::default();
        for word in words {
            let start = frame.len();
            frame.extend_from_slice(word.as_ref());
            spans.push((start as u32, frame.len() as u32));
        }
        Args::new(frame.into(), spans)
    }

    /// How many words, the command's name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.as_slice().len()
    }

    /// Whether there is no word at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word at `index`, where 0 is the command's name.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.as_slice().get(index).map(|(start, end)| &self.frame[*start as usize..*end as usize])
    }

    /// The word at `index`, shared with the read buffer.
    #[must_use]
    pub fn bytes(&self, index: usize) -> Option<Bytes> {
        self.spans.as_slice().get(index).map(|(start, end)| self.frame.slice(*start as usize..*end as usize))
    }

    /// All words in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.spans.as_slice().iter().map(|(start, end)| &self.frame[*start as usize..*end as usize])
    }

    /// Bytes that this request keeps in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.frame.len() + self.spans.heap_size()
    }
}

impl PartialEq for Args {
    fn eq(&self, other: &Args) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Args {}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|word| word.escape_ascii().to_string())).finish()
    }
}

/// A vector of spans whose first few need no allocation.
#[derive(Clone, Debug)]
pub(super) enum Spans {
    Inline(u8, [Span; INLINE]),
    Heap(Vec<Span>),
}

impl Default for Spans {
    fn default() -> Spans {
        Spans::Inline(0, [(0, 0); INLINE])
    }
}

impl Spans {
    pub(super) fn push(&mut self, span: Span) {
        match self {
            Spans::Inline(count, spans) if usize::from(*count) < INLINE => {
                spans[usize::from(*count)] = span;
                *count += 1;
            }
            Spans::Inline(_, spans) => {
                let mut heap = Vec::with_capacity(4 * INLINE);
                heap.extend_from_slice(spans);
                heap.push(span);
                *self = Spans::Heap(heap);
            }
            Spans::Heap(spans) => spans.push(span),
        }
    }

    pub(super) fn as_slice(&self) -> &[Span] {
        match self {
            Spans::Inline(count, spans) => &spans[..usize::from(*count)],
            Spans::Heap(spans) => spans,
        }
    }

    pub(super) fn heap_size(&self) -> usize {
        match self {
            Spans::Inline(..) => 0,
            Spans::Heap(spans) => spans.capacity() * size_of::<Span>(),
        }
    }
}
