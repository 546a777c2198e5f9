/* In Django's admin: copies a new secret. The clipboard's newer interface works over HTTPS only. */
'use strict';

for (const copy of document.querySelectorAll('.copy-content')) {
  copy.addEventListener('click', () => {
    getSelection().selectAllChildren(document.querySelector(copy.dataset.clipboardTarget));
    document.execCommand('copy');
  });
}
