package storage

import "encoding/json"

// Settings reads all stored settings. What is not stored has its default: see package provisioner.
func (tx *Tx) Settings() (map[string]json.RawMessage, error) {
	list, err := list(tx, func(s scanner) (x Setting, err error) {
		err = s.Scan(&x.Name, scanJSON(&x.Value))
		return x, err
	}, "select name, value from settings")
	out := make(map[string]json.RawMessage, len(list))
	for _, x := range list {
		out[x.Name] = x.Value
	}
	return out, err
}

// Setting reads one stored setting; ErrNotFound when it has its default.
func (tx *Tx) Setting(name string) (json.RawMessage, error) {
	var v json.RawMessage
	err := tx.get([]any{scanJSON(&v)}, "select value from settings where name = $1", name)
	return v, err
}

// PutSetting stores a setting.
func (tx *Tx) PutSetting(name string, value json.RawMessage) error {
	_, err := tx.Exec("insert into settings (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value", name, value)
	return err
}

// DeleteSetting gives a setting its default back.
func (tx *Tx) DeleteSetting(name string) error {
	_, err := tx.Exec("delete from settings where name = $1", name)
	return err
}
