/* The preview, the presets and a new secret in the form of Django's admin. NetBox's pages have their own scripts. */
'use strict';

const button = document.querySelector('[data-draft]');

/* Send the form as saving it would: all chosen users, tags and groups, not only the marked ones. */
function entered() {
  const data = new FormData(button.form);
  for (const list of button.form.querySelectorAll('.selector-chosen select')) {
    data.delete(list.name);
    for (const option of list.options) data.append(list.name, option.value);
  }
  return data;
}

async function show() {
  const answer = await fetch(button.dataset.draft, {method: 'POST', body: entered()});
  const {id} = document.activeElement;
  const draft = document.querySelector('#draft');
  if (answer.ok) draft.outerHTML = await answer.text();
  else draft.textContent = `${answer.status} ${answer.statusText}`;
  if (id) document.getElementById(id)?.focus();
}

button.addEventListener('click', show);
button.form.addEventListener('change', event => event.target.closest('#draft') && show());

/* Enter in the preview's search looks for it, and saves nothing. */
button.form.addEventListener('keydown', event => {
  if (event.key === 'Enter' && event.target.id === 'id_preview_name') {
    event.preventDefault();
    show();
  }
});

/* Another preset keeps what was typed. The admin selects all chosen users and tags, as before saving. */
document.querySelector('.wh-presets')?.addEventListener('click', event => {
  const link = event.target.closest('a');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const chosen = document.createElement('button');
  Object.assign(chosen, {
    name: '_preset', value: new URLSearchParams(link.search).get('preset'), formNoValidate: true, hidden: true,
  });
  button.form.append(chosen);
  button.form.requestSubmit(chosen);
});

/* Copy a new secret, or a feed's address. The clipboard's newer interface works over HTTPS only. */
for (const copy of document.querySelectorAll('.copy-content')) {
  copy.addEventListener('click', () => {
    getSelection().selectAllChildren(document.querySelector(copy.dataset.clipboardTarget));
    document.execCommand('copy');
  });
}
