package storage

// The templates by which operators override preseeds.

const preseedTemplateColumns = `id, name, content, created, updated`

func scanPreseedTemplate(r scanner) (p PreseedTemplate, err error) {
	err = r.Scan(&p.ID, &p.Name, &p.Content, scanTime(&p.Created), scanTime(&p.Updated))
	return p, err
}

// SavePreseedTemplate writes a template; one of the same name gets the content.
func (tx *Tx) SavePreseedTemplate(p *PreseedTemplate) error {
	p.Updated = tx.Now()
	created := p.Updated
	return tx.get([]any{&p.ID, scanTime(&p.Created)}, `insert into preseed_templates (name, content, created, updated) values ($1, $2, $3, $4)
		on conflict (name) do update set content = excluded.content, updated = excluded.updated returning id, created`,
		p.Name, p.Content, created, p.Updated)
}

// PreseedTemplates returns all templates by name.
func (tx *Tx) PreseedTemplates() ([]PreseedTemplate, error) {
	return list(tx, scanPreseedTemplate, `select `+preseedTemplateColumns+` from preseed_templates order by name`)
}

// PreseedTemplate returns a template by name.
func (tx *Tx) PreseedTemplate(name string) (PreseedTemplate, error) {
	return row(tx, scanPreseedTemplate, `select `+preseedTemplateColumns+` from preseed_templates where name = $1`, name)
}

// PreseedTemplatesNamed returns those of the templates that have one of the names.
func (tx *Tx) PreseedTemplatesNamed(names []string) ([]PreseedTemplate, error) {
	w := tx.where().in("name", names)
	return list(tx, scanPreseedTemplate, `select `+preseedTemplateColumns+` from preseed_templates`+w.sql(), w.args...)
}

// DeletePreseedTemplate removes a template.
func (tx *Tx) DeletePreseedTemplate(name string) error {
	return tx.one(`delete from preseed_templates where name = $1`, name)
}
