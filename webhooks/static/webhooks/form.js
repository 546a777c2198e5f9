/* A browser cannot show what is wrong with a field in a folded group: unfold it. */
document.addEventListener(
  'invalid',
  event => event.target.closest('details')?.setAttribute('open', ''),
  true,
);

/* The preview sends the form as saving it would: all chosen object types, not only the marked ones. */
document.addEventListener('htmx:configRequest', event => {
  for (const list of event.target.closest('form')?.querySelectorAll('select.select-all') ?? []) {
    event.detail.parameters[list.name] = Array.from(list.options, option => option.value);
  }
});

/* Enter in the preview's search looks for it, and saves nothing. */
document.addEventListener('keydown', event => {
  if (event.key === 'Enter' && event.target.id === 'id_preview_name') {
    event.preventDefault();
    event.target.dispatchEvent(new Event('change', {bubbles: true}));
  }
});

/* NetBox's buttons beside the object types can be reached by keyboard, but they are links, which no key clicks. */
document.addEventListener('keydown', event => {
  if (event.target.matches('.move-option') && ['Enter', ' '].includes(event.key)) {
    event.preventDefault();
    event.target.click();
  }
});

/* Each selected object type has a filter. Those of other types are not sent, but come back with the type. */
function showFilters() {
  const types = Array.from(document.querySelectorAll('[name="object_types_1"] option'), option => option.value);
  const filters = Array.from(document.querySelectorAll('[data-filter-of]'));
  for (const filter of filters) {
    filter.hidden = !types.includes(filter.dataset.filterOf);
    filter.querySelector('input').disabled = filter.hidden;
  }
  const shown = filters.filter(filter => !filter.hidden);
  filters[0]?.closest('.row')?.toggleAttribute('hidden', !shown.length);
  const isList = shown.some(filter => filter.querySelector('input').value.trim());
  document.getElementById('id_send_list')?.closest('.row')?.toggleAttribute('hidden', !isList);
}

for (const happened of ['htmx:load', 'click', 'input']) {
  document.addEventListener(happened, showFilters);
}
