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
