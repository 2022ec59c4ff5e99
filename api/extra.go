package api

import "encoding/json"

// MarshalJSON writes the fields with the extra keys beside them.
func (r BootResource) MarshalJSON() ([]byte, error) {
	type plain BootResource
	b, err := json.Marshal(plain(r))
	if err != nil || len(r.Extra) == 0 {
		return b, err
	}
	all := map[string]any{}
	for k, v := range r.Extra {
		all[k] = v
	}
	var own map[string]json.RawMessage
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	for k, v := range own {
		all[k] = v
	}
	return json.Marshal(all)
}

// UnmarshalJSON reads the fields, and keeps the keys that are none in Extra.
func (r *BootResource) UnmarshalJSON(b []byte) error {
	type plain BootResource
	if err := json.Unmarshal(b, (*plain)(r)); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	for _, k := range []string{"resource_uri", "id", "type", "name", "architecture", "last_deployed", "subarches", "title", "base_image", "sets"} {
		delete(all, k)
	}
	if r.Extra = nil; len(all) > 0 {
		r.Extra = all
	}
	return nil
}
