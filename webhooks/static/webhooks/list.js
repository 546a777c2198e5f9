/* Above NetBox's lists: takes the selected rows along, and the filter as the list shows it now. */
'use strict';

document.getElementById('webhooks-send-now').addEventListener('submit', (event) => {
    const form = event.currentTarget;
    form.action = form.action.replace(/\?.*/u, '') + window.location.search;
    form.querySelectorAll('[name="pk"]').forEach((old) => old.remove());
    if (document.querySelector('#select-all:checked')) {
        return;
    }
    for (const box of document.querySelectorAll('input[name="pk"]:checked')) {
        const copy = document.createElement('input');
        copy.type = 'hidden';
        copy.name = 'pk';
        copy.value = box.value;
        form.append(copy);
    }
});
