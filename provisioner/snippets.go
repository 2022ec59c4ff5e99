package provisioner

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// DHCP snippets are kept, with all their versions, for clients that manage them. Our DHCP server is not ISC's and reads none of them.

// SnippetInput is what a request says of a DHCP snippet: nil leaves a field as it is, empty text clears a reference.
type SnippetInput struct {
	Name        *string
	Value       *string
	Description *string
	Enabled     *bool
	Node        *string // system_id
	Subnet      *string // id or specifier
	IPRange     *string // id
	Global      *bool
}

// Snippet is a snippet with its versions, the newest first, and the node it is for.
type Snippet struct {
	storage.DHCPSnippet
	Values []storage.DHCPSnippetValue
	Node   *storage.Node
}

// SnippetBook is snippets with what their rendering refers to.
type SnippetBook struct {
	List []Snippet
	Cat  *storage.Catalogue
}

// loadSnippets reads all snippets in a constant number of queries.
func loadSnippets(tx *storage.Tx) (b SnippetBook, err error) {
	rows, err := tx.DHCPSnippets()
	if err != nil {
		return b, err
	}
	values, err := tx.SnippetValues()
	if err != nil {
		return b, err
	}
	if b.Cat, err = tx.LoadCatalogue(); err != nil {
		return b, err
	}
	ids := []int64{}
	for _, r := range rows {
		if r.NodeID != nil {
			ids = append(ids, *r.NodeID)
		}
	}
	nodes, err := tx.Nodes(storage.NodeFilter{IDs: ids})
	if err != nil {
		return b, err
	}
	byID := map[int64]*storage.Node{}
	for i := range nodes {
		byID[nodes[i].ID] = &nodes[i]
	}
	b.List = make([]Snippet, len(rows))
	at := map[int64]*Snippet{}
	for i, r := range rows {
		b.List[i] = Snippet{DHCPSnippet: r}
		if at[r.ID] = &b.List[i]; r.NodeID != nil {
			b.List[i].Node = byID[*r.NodeID]
		}
	}
	for _, v := range slices.Backward(values) {
		if x := at[v.SnippetID]; x != nil {
			x.Values = append(x.Values, v)
		}
	}
	return b, nil
}

// one narrows the book to the snippet with an id or a name.
func (b SnippetBook) one(spec string) (SnippetBook, error) {
	x, ok := findByIDOrName(b.List, spec, func(x Snippet) (int64, string) { return x.ID, x.Name })
	if !ok {
		return b, noMatch("DHCPSnippet")
	}
	b.List = []Snippet{x}
	return b, nil
}

// Snippets returns all DHCP snippets.
func (s *Service) Snippets(ctx context.Context) (b SnippetBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		b, err = loadSnippets(tx)
		return err
	})
	return b, err
}

// Snippet returns a snippet by id or name.
func (s *Service) Snippet(ctx context.Context, spec string) (SnippetBook, error) {
	b, err := s.Snippets(ctx)
	if err != nil {
		return b, err
	}
	return b.one(spec)
}

// apply checks the fields and sets them.
func (in SnippetInput) apply(tx *storage.Tx, c *storage.Catalogue, x *storage.DHCPSnippet) error {
	f := form{}
	create := x.ID == 0
	switch {
	case in.Name != nil && *in.Name != "":
		x.Name = *in.Name
		f.text("name", x.Name, 255, nil)
	case create || in.Name != nil:
		f.add("name", msgRequired)
	}
	switch {
	case in.Value != nil && strings.TrimSpace(*in.Value) != "":
		f.text("value", *in.Value, descriptionLimit, nil)
	case create || in.Value != nil:
		f.add("value", msgRequired)
	}
	x.Description = deref(in.Description, x.Description)
	f.text("description", x.Description, descriptionLimit, nil)
	x.Enabled = deref(in.Enabled, x.Enabled)
	if err := in.applyTarget(tx, c, f, x); err != nil {
		return err
	}
	return f.err()
}

// applyTarget sets what the snippet is for: nothing, a node or a subnet. Choosing one gives up the other.
func (in SnippetInput) applyTarget(tx *storage.Tx, c *storage.Catalogue, f form, x *storage.DHCPSnippet) error {
	chosen := 0
	if in.Node != nil && *in.Node == "" {
		x.NodeID = nil
	} else if in.Node != nil {
		n, err := tx.Node(*in.Node)
		switch {
		case isNotFound(err):
			f["node"] = append(f["node"], msgNoChoice)
		case err != nil:
			return err
		default:
			chosen++
			x.NodeID, x.SubnetID, x.IPRangeID = &n.ID, nil, nil
		}
	}
	if in.Subnet != nil && *in.Subnet == "" {
		x.SubnetID, x.IPRangeID = nil, nil
	} else if in.Subnet != nil {
		sn, err := FindSubnet(c, *in.Subnet)
		if err != nil {
			f.add("subnet", msgNoChoice)
		} else {
			if chosen++; chosen == 1 {
				x.NodeID = nil
			}
			x.SubnetID = &sn.ID
		}
	}
	if in.IPRange != nil && *in.IPRange == "" {
		x.IPRangeID = nil
	} else if in.IPRange != nil {
		id, perr := strconv.ParseInt(*in.IPRange, 10, 64)
		r, err := tx.IPRange(id)
		switch {
		case perr != nil || isNotFound(err):
			f.add("iprange", msgNoChoice)
		case err != nil:
			return err
		case x.SubnetID == nil || *x.SubnetID != r.SubnetID:
			f.add("iprange", "The IP range must belong to the subnet of the snippet.")
		default:
			x.IPRangeID = &r.ID
		}
	}
	if in.Global != nil && *in.Global {
		x.NodeID, x.SubnetID, x.IPRangeID = nil, nil, nil
	} else if chosen == 2 {
		f.add("__all__", "Cannot set both a node and a subnet on a DHCP snippet.")
	}
	return nil
}

// CreateSnippet keeps a new snippet.
func (s *Service) CreateSnippet(ctx context.Context, in SnippetInput) (SnippetBook, error) {
	return s.changeSnippet(ctx, "", func(tx *storage.Tx, b SnippetBook) (int64, error) {
		x := storage.DHCPSnippet{Enabled: true}
		if err := in.apply(tx, b.Cat, &x); err != nil {
			return 0, err
		}
		if err := tx.InsertDHCPSnippet(&x); err != nil {
			return 0, err
		}
		return x.ID, tx.InsertSnippetValue(&storage.DHCPSnippetValue{SnippetID: x.ID, Value: *in.Value})
	})
}

// UpdateSnippet changes a snippet. Another text is a new version.
func (s *Service) UpdateSnippet(ctx context.Context, spec string, in SnippetInput) (SnippetBook, error) {
	return s.changeSnippet(ctx, spec, func(tx *storage.Tx, b SnippetBook) (int64, error) {
		old := b.List[0]
		x := old.DHCPSnippet
		if err := in.apply(tx, b.Cat, &x); err != nil {
			return 0, err
		}
		if err := tx.UpdateDHCPSnippet(&x); err != nil {
			return 0, err
		}
		if in.Value == nil || len(old.Values) > 0 && old.Values[0].Value == *in.Value {
			return x.ID, nil
		}
		return x.ID, tx.InsertSnippetValue(&storage.DHCPSnippetValue{SnippetID: x.ID, Value: *in.Value})
	})
}

// RevertSnippet makes an earlier version the current one: by its id, or by how many steps back as a negative number. What came after
// it is forgotten.
func (s *Service) RevertSnippet(ctx context.Context, spec, to string) (SnippetBook, error) {
	return s.changeSnippet(ctx, spec, func(tx *storage.Tx, b SnippetBook) (int64, error) {
		if to == "" {
			return 0, Errorf(Invalid, "You must specify where to revert to")
		}
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil {
			return 0, Errorf(Invalid, "%s is an invalid 'to' value", to)
		}
		x := b.List[0]
		k := slices.IndexFunc(x.Values, func(v storage.DHCPSnippetValue) bool { return v.ID == n })
		if n <= 0 && n > -int64(len(x.Values)) {
			k = int(-n)
		}
		if k < 0 {
			return 0, Errorf(Invalid, "%s not found in history", to)
		}
		return x.ID, tx.DeleteSnippetValuesAfter(x.ID, x.Values[k].ID)
	})
}

// DeleteSnippet removes a snippet with its history.
func (s *Service) DeleteSnippet(ctx context.Context, spec string) error {
	_, err := s.changeSnippet(ctx, spec, func(tx *storage.Tx, b SnippetBook) (int64, error) {
		return 0, tx.DeleteDHCPSnippet(b.List[0].ID)
	})
	return err
}

// changeSnippet runs fn on a snippet, or on none when spec is empty, and returns the one that fn names.
func (s *Service) changeSnippet(ctx context.Context, spec string, fn func(tx *storage.Tx, b SnippetBook) (int64, error)) (b SnippetBook, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return b, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		before, err := loadSnippets(tx)
		if err != nil {
			return err
		}
		if spec != "" {
			if before, err = before.one(spec); err != nil {
				return err
			}
		}
		id, err := fn(tx, before)
		if errors.Is(err, storage.ErrConflict) {
			return FieldError("name", "DHCP snippet with this Name already exists.")
		}
		if err != nil || id == 0 {
			return err
		}
		if b, err = loadSnippets(tx); err != nil {
			return err
		}
		b, err = b.one(strconv.FormatInt(id, 10))
		return err
	})
	return b, err
}
