package list

// Pages and leaf chunks allocated at once, at most: 32 KiB each, the largest
// that Go's allocator takes from a size class.
const (
	pageSlab = 32 << 10 / 1280 // pages
	leafSlab = 4               // chunks
)

// A slab hands out parts of memory that was allocated in one piece. Without it
// one edit in two hundred would allocate, each of which may have to do a share
// of the collector's work; with it one in two thousand does.
type slab[T any] struct{ free []T }

// next returns a part, zero, for a list that has had that many. A short list
// allocates little ahead: an eighth of what it has, up to most.
func (s *slab[T]) next(had, most int) *T {
	if len(s.free) == 0 {
		s.free = make([]T, min(1+had/8, most))
	}
	t := &s.free[0]
	s.free = s.free[1:]
	return t
}
