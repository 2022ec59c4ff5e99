package content

import "syscall"

// Free says how many bytes the disk of the store has room for.
func (s *Store) Free() (int64, error) {
	if s.free != nil {
		return s.free()
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// SetFree replaces the answer of Free, for tests of a full disk.
func (s *Store) SetFree(f func() (int64, error)) { s.free = f }
