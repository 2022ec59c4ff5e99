package dhcp

import (
	"net/netip"
	"time"

	"github.com/ingot-metal/ingot/bootsrv/view"
)

// offer picks the address for a client without a fixed one and holds it for a while: the one that it has or had, else the one it
// asks for, else one that nobody ever had, else the one that has been free the longest.
func (s *Store) offer(r *request) (netip.Addr, *view.Subnet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	take := func(a netip.Addr) (netip.Addr, *view.Subnet) {
		sub := r.leasable(a)
		if sub == nil || !s.freeFor(a, r) {
			return netip.Addr{}, nil
		}
		s.hold(a, r)
		return a, sub
	}
	if l := s.lastOf(r.mac, r.pl.vlan); l != nil {
		if a, sub := take(l.Addr); sub != nil {
			return a, sub
		}
	}
	if want := addr4(r.p.RequestedIPAddress()); want.IsValid() {
		if a, sub := take(want); sub != nil {
			return a, sub
		}
	}
	subnets := r.pl.subnets
	if r.pl.near != nil {
		// The relay's or our own subnet first; the VLAN's others when it is full.
		subnets = append([]*view.Subnet{}, r.pl.near)
		for _, n := range r.pl.subnets {
			if n != r.pl.near {
				subnets = append(subnets, n)
			}
		}
	}
	s.fresh(r.v)
	if until, full := s.fullUntil[r.pl.vlan]; full && r.now.Before(until) {
		return netip.Addr{}, nil
	}
	for _, sub := range subnets {
		if !sub.DHCP {
			continue
		}
		for _, rng := range sub.Dynamic {
			a, ok := s.cursor[rng]
			if !ok {
				a = rng.Start
			}
			for ; rng.Contains(a); a = a.Next() {
				if s.byAddr[a] != nil {
					continue
				}
				if got, sub := take(a); sub != nil {
					s.cursor[rng] = a
					return got, sub
				}
			}
			s.cursor[rng] = a
		}
	}
	// Every address has been somebody's.
	var oldest *Lease
	next := r.now.Add(time.Minute)
	for _, sub := range subnets {
		for _, rng := range sub.Dynamic {
			for a := rng.Start; rng.Contains(a); a = a.Next() {
				l := s.byAddr[a]
				switch {
				case l == nil:
				case l.active(r.now):
					if l.Expires.Before(next) {
						next = l.Expires
					}
				case oldest == nil || l.Expires.Before(oldest.Expires):
					if r.leasable(a) != nil {
						oldest = l
					}
				}
			}
		}
	}
	if oldest != nil {
		return take(oldest.Addr)
	}
	s.fullUntil[r.pl.vlan] = next
	return netip.Addr{}, nil
}

// fresh forgets where to look for free addresses when the view is another one: what was reserved may be free now.
func (s *Store) fresh(v *view.View) {
	if s.seen != v {
		s.seen = v
		s.forget()
	}
}

// forget makes the next search begin anew: an address became free. The caller holds the lock.
func (s *Store) forget() {
	clear(s.fullUntil)
	clear(s.cursor)
}

// freeFor says whether the client may have the address now. The caller holds the lock.
func (s *Store) freeFor(a netip.Addr, r *request) bool {
	l := s.byAddr[a]
	if l == nil || !l.active(r.now) {
		return true
	}
	return l.State != Declined && l.MAC == r.mac && l.VLANID == r.pl.vlan
}

// hold keeps an address for a client until it asks for it. A lease that it already has stays as it is. The caller holds the lock.
func (s *Store) hold(a netip.Addr, r *request) {
	l := s.byAddr[a]
	if l != nil && l.MAC == r.mac && l.VLANID == r.pl.vlan && l.State == Bound && l.active(r.now) {
		return
	}
	// The record of whoever had it before is on disk until this client's own replaces it.
	if old := s.lastOf(r.mac, r.pl.vlan); old != nil && old.State == Offered && old.Addr != a {
		s.drop(old)
	}
	s.put(&Lease{Addr: a, MAC: r.mac, VLANID: r.pl.vlan, State: Offered, Start: r.now, Expires: r.now.Add(offerHold)})
}

// dropOffer frees what was only offered.
func (s *Store) dropOffer(mac string, vlan int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lastOf(mac, vlan); l != nil && l.State == Offered {
		s.drop(l)
	}
}

// drop removes an offer. The caller holds the lock.
func (s *Store) drop(l *Lease) {
	delete(s.byAddr, l.Addr)
	k := clientKey{l.MAC, l.VLANID}
	if s.byClient[k] == l.Addr {
		delete(s.byClient, k)
	}
	s.forget()
}

// holds says whether the client has the address by a running lease.
func (s *Store) holds(mac string, vlan int64, a netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byAddr[a]
	return l != nil && l.MAC == mac && l.VLANID == vlan && l.State == Bound && l.active(now)
}

// bind leases the address to the client and returns when that is on disk. It is false when the address is another client's, or
// when this client has a running lease on another address.
func (s *Store) bind(r *request, a netip.Addr, d time.Duration, hostname string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.freeFor(a, r) {
		return false, nil
	}
	var gen uint64
	start := r.now
	if old := s.lastOf(r.mac, r.pl.vlan); old != nil {
		if old.Addr != a {
			if old.State == Offered {
				s.drop(old)
			} else if old.active(r.now) {
				// One machine, one address: what it had before is free.
				freed := *old
				freed.State, freed.Expires = Released, r.now
				s.byAddr[old.Addr] = &freed
				s.journal(&freed)
				s.forget()
			}
		} else if old.State == Bound && old.active(r.now) {
			start = old.Start
		}
	}
	exp := r.now.Add(d)
	l := &Lease{Addr: a, MAC: r.mac, VLANID: r.pl.vlan, State: Bound, Start: start, Expires: exp, Hostname: hostname}
	s.put(l)
	gen = s.journal(l)
	return true, s.wait(gen)
}

// release ends the client's lease.
func (s *Store) release(mac string, vlan int64, a netip.Addr, now time.Time) (bool, error) {
	return s.end(mac, vlan, a, Released, now, now)
}

// decline takes an address that the client found in use out of circulation for an hour. Only whoever has it can do so.
func (s *Store) decline(mac string, vlan int64, a netip.Addr, now time.Time) (bool, error) {
	return s.end(mac, vlan, a, Declined, now, now.Add(declineHold))
}

func (s *Store) end(mac string, vlan int64, a netip.Addr, st State, now, expires time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byAddr[a]
	if l == nil || l.MAC != mac || l.VLANID != vlan || !l.active(now) || l.State == Declined {
		return false, nil
	}
	n := *l
	n.State, n.Expires = st, expires
	s.put(&n)
	s.forget()
	return true, s.wait(s.journal(&n))
}
